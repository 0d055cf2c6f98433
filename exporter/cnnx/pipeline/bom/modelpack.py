"""What `kit` or `oras` needs to push a bundle to a registry as a CNCF ModelPack artifact.

Specification: https://github.com/modelpack/model-spec (docs/spec.md, docs/config.md, docs/annotations.md).
With `oras` every file is a layer of its own, not in an archive, so that its digest in the registry is the
SHA-256 that cnnx states. The Kitfile is for `kit pack --use-model-pack` (KitOps 1.10 or later).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnnx.bundle import MODEL, REFERENCE, SOURCE
from cnnx.pipeline.bom.contents import Contents

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
KITFILE, CONFIG_FILE, ANNOTATIONS = "Kitfile", "config.json", "annotations.json"
_LAYER = "application/vnd.cncf.model.{}.v1.raw"
_NO_DATE = "1970-01-01T00:00:00Z"  # constant, so that equal bundles give equal artifacts
_PRECISIONS = {"int8": "int8", "fp16": "float16", "fp32": "float32"}
_NOT_CNN = ("", "levit")  # what the user's own network is, cnnx does not know
_OCI = "org.opencontainers.image."


def layers_of(contents: Contents) -> dict[str, str]:
    """Media type of each file of the artifact, by path in the bundle."""
    return {name: _LAYER.format(_kind(name, contents)) for name in _all(contents)}


def _all(contents: Contents) -> dict[str, str]:
    """SHA-256 of every file of the artifact: all that a signature covers, and the signature."""
    return {**contents.files, **contents.others}


def _kind(name: str, contents: Contents) -> str:
    if name not in contents.files:
        return "doc"
    if name in (MODEL, SOURCE) or (name.startswith("engines/") and not name.endswith((".json", ".log"))):
        return "weight"
    return "dataset" if name == REFERENCE else "weight.config"


def config_of(contents: Contents) -> dict[str, Any]:
    """The model's configuration, of the media type `CONFIG`."""
    manifest, recipe = contents.manifest, contents.recipe
    precisions = {_PRECISIONS[layer["precision"]] for layer in manifest.layers}
    parameters = recipe.model.parameters
    return {
        "descriptor": {
            **({"createdAt": contents.date} if contents.date else {}),
            **({"family": contents.family} if contents.family else {}),
            "name": manifest.name,
            "version": contents.version,
            "title": recipe.title or recipe.name,
            **({"description": recipe.summary} if recipe.summary else {}),
            **({"licenses": [contents.spdx]} if contents.spdx else {}),
        },
        "config": {
            **({"architecture": "cnn"} if contents.family not in _NOT_CNN else {}),
            "format": "onnx",
            **({"paramSize": _size(parameters)} if parameters else {}),
            "precision": ",".join(sorted(precisions)) or _PRECISIONS[manifest.precision],
            **({"quantization": "qdq"} if manifest.precision == "int8" else {}),
            "capabilities": {"inputTypes": ["image"], "outputTypes": ["other"]},
        },
        "modelfs": {
            "type": "layers",
            "diffIds": [f"sha256:{digest}" for digest in _all(contents).values()],
        },
    }


def annotations_of(contents: Contents, sizes: dict[str, int]) -> dict[str, dict[str, str]]:
    """Annotations of the manifest and of each layer, in the form that `oras --annotation-file` reads."""
    about = {
        f"{_OCI}title": contents.manifest.name,
        f"{_OCI}version": contents.version,
        f"{_OCI}created": contents.date or _NO_DATE,
        **({f"{_OCI}description": contents.recipe.summary} if contents.recipe.summary else {}),
        **({f"{_OCI}licenses": contents.spdx} if contents.spdx else {}),
    }
    return {
        "$manifest": about,
        **{
            name: {
                "org.cncf.model.filepath": name,
                "org.cncf.model.file.metadata+json": _metadata(name, sizes[name]),
                "org.cncf.model.file.mediatype.untested": "false",
            }
            for name in _all(contents)
        },
    }


def _metadata(name: str, size: int) -> str:
    """A file's attributes: constants, as the specification advises, except its name and size."""
    constant = {"mode": 0o644, "uid": 0, "gid": 0}
    return json.dumps({"name": name, **constant, "size": size, "mtime": _NO_DATE, "typeflag": ord("0")})


def kitfile_of(contents: Contents) -> str:
    """A Kitfile. Its strings are written as JSON, which YAML includes."""
    return "\n".join(_kitfile(contents)) + "\n"


def _kitfile(contents: Contents) -> Iterator[str]:
    manifest, recipe = contents.manifest, contents.recipe
    licence = [f"  license: {_quoted(contents.spdx)}"] if contents.spdx else []
    summary = [f"  description: {_quoted(recipe.summary)}"] if recipe.summary else []
    yield from ("manifestVersion: 1.0.0", "package:", f"  name: {_quoted(manifest.name)}")
    yield from (f"  version: {_quoted(contents.version)}", *summary, *licence)
    yield from ("model:", f"  name: {_quoted(manifest.name)}", f"  path: {_quoted(MODEL)}")
    yield from (
        "  framework: ONNX",
        f"  version: {_quoted(contents.version)}",
        *summary,
        *licence,
        "  parts:",
    )
    kinds = {name: _kind(name, contents) for name in contents.files if name != MODEL}
    for name, kind in kinds.items():
        if kind.startswith("weight"):
            part = "config" if kind != "weight" else "source" if name == SOURCE else "engine"
            yield from (f"    - name: {_quoted(name)}", f"      path: {_quoted(name)}", f"      type: {part}")
    yield from ("datasets:", "  - name: self-test", f"    path: {REFERENCE}")
    if contents.others:
        yield "docs:"
    yield from (f"  - path: {_quoted(name)}" for name in contents.others)


def _quoted(text: str) -> str:
    text = json.dumps(text, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def _size(count: int) -> str:
    """A number of parameters as ModelPack writes it: "61.7K"."""
    for prefix, factor in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + prefix
    return f"{count / 1e3:.1f}K"


def commands(contents: Contents, bundle: Path, folder: Path) -> dict[str, str]:
    """The commands that push the bundle, by tool; REGISTRY/NAME:TAG is left to the user."""
    at = {name: shlex.quote(str((folder / name).absolute())) for name in (KITFILE, CONFIG_FILE, ANNOTATIONS)}
    path, reference = shlex.quote(str(bundle)), "REGISTRY/NAME:TAG"
    layers = " ".join(shlex.quote(f"{name}:{kind}") for name, kind in layers_of(contents).items())
    return {
        "kit": f"kit pack {path} --file {at[KITFILE]} --tag {reference} --use-model-pack "
        f"&& kit push {reference}",
        "oras": f"cd {path} && oras push {reference} --artifact-type {ARTIFACT} "
        f"--config {at[CONFIG_FILE]}:{CONFIG} --annotation-file {at[ANNOTATIONS]} {layers}",
    }
