"""A CycloneDX 1.6 bill of materials with a model card, as plain data.

It is written here because cyclonedx-python-lib has no model cards
(https://github.com/CycloneDX/cyclonedx-python-lib/issues/912). Specification: ECMA-424, first edition;
https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

from cnnx.bundle import MODEL
from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import ImageList, TensorInfo
from cnnx.pipeline.bom.contents import Contents
from cnnx.preprocessing.words import described
from cnnx.report.words import shape
from cnnx.store.digests import digest_of

SPEC = "1.6"
_OWN = "cnnx:"
"""Start of the names of properties that CycloneDX leaves to each tool."""
_WEIGHTS = "weights"


def bom_of(contents: Contents) -> dict[str, Any]:
    """The bill of materials. Equal bundles give equal documents: nothing is read from a clock."""
    model = _model(contents)
    document: dict[str, Any] = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {
            **({"timestamp": contents.date} if contents.date else {}),
            "tools": {
                "components": [{"type": "application", "name": "cnnx", "version": metadata.version("cnnx")}]
            },
            "component": model,
        },
        "components": [*_files(contents), *_runtimes(contents.engines), *_image_sets(contents)],
        "dependencies": _dependencies(contents, model["bom-ref"]),
    }
    serial = uuid.UUID(bytes=bytes.fromhex(digest_of(document))[:16], version=5)
    return {**document, "serialNumber": f"urn:uuid:{serial}"}


def _model(contents: Contents) -> dict[str, Any]:
    manifest, recipe = contents.manifest, contents.recipe
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.name}",
        "name": manifest.name,
        "version": contents.version,
        "description": recipe.summary or recipe.title or recipe.name,
        "hashes": _hashes(manifest.files[MODEL]),
        **_licences(contents),
        "pedigree": {"ancestors": [_weights(contents)]},
        "modelCard": _card(contents),
        "properties": _properties(
            {
                "precision": manifest.precision,
                "fingerprint": manifest.fingerprint,
                "classes": manifest.classes,
                "preprocessing": described(recipe.preprocessing, recipe.input.shape, recipe.input_format),
                **({"judged-by": _origin(manifest.reference)} if manifest.reference else {}),
                **{f"made-with:{name}": version for name, version in sorted(manifest.versions.items())},
            }
        ),
    }


def _weights(contents: Contents) -> dict[str, Any]:
    """The checkpoint that the graph was made from."""
    weights, url = contents.manifest.weights, contents.recipe.weights.url
    published = weights["kind"] == "pretrained" and url
    return {
        "type": "machine-learning-model",
        "bom-ref": _WEIGHTS,
        "name": weights["origin"],
        "hashes": _hashes(weights["digest"]),
        **_licences(contents),
        **({"externalReferences": [{"type": "distribution", "url": url}]} if published else {}),
        "properties": _properties({"kind": weights["kind"]}),
    }


def _card(contents: Contents) -> dict[str, Any]:
    manifest, verdict = contents.manifest, contents.verdict
    card: dict[str, Any] = {
        "modelParameters": {
            "task": "image-classification",
            **({"architectureFamily": contents.family} if contents.family else {}),
            "modelArchitecture": contents.recipe.title or contents.recipe.name,
            "datasets": [{"ref": _image_ref(role)} for role in manifest.images],
            "inputs": [{"format": _tensor(each)} for each in manifest.inputs],
            "outputs": [{"format": _tensor(each)} for each in manifest.outputs],
        },
    }
    if verdict is not None:
        where = f"{verdict.subject.runtime}, {verdict.subject.device}"
        images = f"{verdict.images} images of {verdict.image_set}, "
        card["quantitativeAnalysis"] = {
            "performanceMetrics": [
                {
                    "type": each.name,
                    "value": each.value,
                    "slice": where if each.is_cost else f"{images}{where}",
                    **(
                        {"confidenceInterval": {"lowerBound": each.low, "upperBound": each.high}}
                        if each.low
                        else {}
                    ),
                }
                for each in contents.metrics
            ]
        }
        card["properties"] = _properties(
            {"verdict": verdict.verdict.value, "subject": verdict.subject.digest}
        )
    if contents.limits:
        card["considerations"] = {"technicalLimitations": list(contents.limits)}
    return card


def _files(contents: Contents) -> list[dict[str, Any]]:
    engines = {f"engines/{engine.identity}/{engine.file}": engine for engine in contents.engines}
    return [
        {
            "type": "file",
            "bom-ref": _file_ref(name),
            "name": name,
            "hashes": _hashes(digest),
            **({"properties": _of_engine(engines[name])} if name in engines else {}),
        }
        for name, digest in contents.files.items()
    ]


def _of_engine(engine: Engine) -> list[dict[str, str]]:
    return _properties(
        {
            "native-code": "true",
            "precision": engine.precision,
            "target": engine.target or engine.reach,
            "graph": engine.graph_digest,
        }
    )


def _runtimes(engines: Sequence[Engine]) -> list[dict[str, Any]]:
    found = {_runtime_ref(engine): engine for engine in engines}
    return [
        {
            "type": "framework",
            "bom-ref": reference,
            "name": engine.runtime,
            "version": engine.runtime_version,
        }
        for reference, engine in found.items()
    ]


def _image_sets(contents: Contents) -> list[dict[str, Any]]:
    return [_image_set(role, images) for role, images in contents.manifest.images.items()]


def _image_set(role: str, images: ImageList) -> dict[str, Any]:
    """An image set. Its digest is one of a list of images, and not of a file, so it is not among hashes."""
    return {
        "type": "data",
        "bom-ref": _image_ref(role),
        "name": images.name,
        "description": f"{images.images} {role} images: {images.source}",
        "data": [{"type": "dataset", "name": images.name}],
        "properties": _properties(
            {
                "role": role,
                "images": images.images,
                "list-sha256": images.digest,
                "synthetic": str(images.synthetic).lower(),
            }
        ),
    }


def _dependencies(contents: Contents, model: str) -> list[dict[str, Any]]:
    graph = _file_ref(MODEL)
    images = [_image_ref(role) for role in contents.manifest.images]
    found = [{"ref": model, "dependsOn": sorted([_WEIGHTS, *map(_file_ref, contents.files), *images])}]
    found.append({"ref": graph, "dependsOn": [_WEIGHTS]})
    found += [
        {
            "ref": _file_ref(f"engines/{engine.identity}/{engine.file}"),
            "dependsOn": [graph, _runtime_ref(engine)],
        }
        for engine in contents.engines
    ]
    return found


def _licences(contents: Contents) -> dict[str, Any]:
    if not contents.licence:
        return {}
    named = {"id": contents.spdx} if contents.spdx else {"name": contents.licence}
    return {"licenses": [{"license": named}]}


def _hashes(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"{_OWN}{name}", "value": str(value)} for name, value in values.items()]


def _tensor(tensor: TensorInfo) -> str:
    return f"{tensor.name}: {tensor.type} {shape(tensor.shape)} {tensor.layout}"


def _origin(reference: Mapping[str, Any]) -> str:
    return f"{reference['origin']} ({reference['digest']})"


def _file_ref(name: str) -> str:
    return f"file:{name}"


def _image_ref(role: str) -> str:
    return f"images:{role}"


def _runtime_ref(engine: Engine) -> str:
    return f"runtime:{engine.runtime}@{engine.runtime_version}"


def counted(document: Mapping[str, Any]) -> dict[str, int]:
    """Number of components by type."""
    found: dict[str, int] = {}
    components: Iterable[Mapping[str, Any]] = document["components"]
    for each in (document["metadata"]["component"], *components):
        found[each["type"]] = found.get(each["type"], 0) + 1
    return found
