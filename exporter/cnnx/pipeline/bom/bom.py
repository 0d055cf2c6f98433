"""`bom`: writes a bundle's bill of materials, and what a registry needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.bundles import BomOptions
from cnnx.pipeline.bom.contents import Contents, contents_of
from cnnx.pipeline.bom.cyclonedx import bom_of, counted
from cnnx.pipeline.bom.modelpack import (
    ANNOTATIONS,
    CONFIG_FILE,
    KITFILE,
    annotations_of,
    commands,
    config_of,
    kitfile_of,
)
from cnnx.report.result import Result
from cnnx.report.table import Block, Facts, Remark
from cnnx.store.drafts import settle
from cnnx.store.files import atomic_file, atomic_files, check_place

_PACKED = (KITFILE, CONFIG_FILE, ANNOTATIONS)


@dataclass(frozen=True, slots=True, repr=False)
class BomResult(Result):
    """A bill of materials that was written.

    Attributes:
        file: where it was written.
        document: CycloneDX 1.6.
        modelpack: files for a registry that were written; empty if they were not requested.
        commands: the commands that push the bundle, by tool; empty if no such files were requested.
    """

    file: Path
    document: Mapping[str, Any]
    modelpack: tuple[Path, ...]
    commands: Mapping[str, str]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        card = self.document["metadata"]["component"]["modelCard"]
        metrics = card.get("quantitativeAnalysis", {}).get("performanceMetrics", [])
        components = ", ".join(f"{count} {kind}" for kind, count in counted(self.document).items())
        rows = {"bill of materials": str(self.file), "components": components, "metrics": str(len(metrics))}
        if self.modelpack:
            rows["ModelPack"] = ", ".join(map(str, self.modelpack))
        yield Facts(tuple(rows.items()))
        for limit in card.get("considerations", {}).get("technicalLimitations", []):
            yield Remark(limit, "limit", "open")
        for tool, command in self.commands.items():
            yield Remark(command, f"push with {tool}")


@takes(BomOptions)
def bom(bundle: str | Path, options: BomOptions) -> BomResult:
    """Write a bundle's bill of materials: CycloneDX 1.6 of the type machine-learning-model.

    It lists every file and engine with its SHA-256, the weights and image sets they come from, and a model
    card with the newest verdict and its intervals. Equal bundles give equal files.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword.

    Raises:
        BundleError: a file is damaged.
        UsageError: a file would be written into the bundle, or over one of the user's.
        WriteFailed: a file cannot be written; raised before any work.

    Examples:
        >>> result = cnnx.bom("lenet5-int8", out="lenet5.cdx.json")
        >>> result.document["metadata"]["component"]["modelCard"]["modelParameters"]["task"]
        'image-classification'
    """
    opened = Bundle.open(Path(bundle))
    file = Path(options.out) if options.out is not None else Path(f"{opened.manifest.name}.cdx.json")
    folder = None if options.modelpack is None else Path(options.modelpack)
    packed = [] if folder is None else [folder / name for name in _PACKED]
    for target in (file, *packed):
        _check(target, opened.path)
    if folder is not None:
        settle(folder)
    if (there := [each for each in packed if each.exists()]) and len(there) < len(packed):
        raise UsageError(
            "the file exists, and is not of an earlier --modelpack", where=there[0], hint="give a new folder"
        )
    contents = contents_of(opened)
    document = bom_of(contents)
    with atomic_file(file) as draft:
        draft.write_text(_json(document), encoding="utf-8")
    if folder is None:
        return BomResult(file, document, (), {})
    with atomic_files(folder, own=lambda: _PACKED) as drafts:
        for name, text in zip(_PACKED, _modelpack(opened, contents), strict=True):
            (drafts / name).write_text(text, encoding="utf-8")
    return BomResult(file, document, tuple(packed), commands(contents, opened.path, folder))


def _modelpack(bundle: Bundle, contents: Contents) -> tuple[str, str, str]:
    """The texts of `_PACKED`."""
    sizes = {name: (bundle.path / name).stat().st_size for name in {**contents.files, **contents.others}}
    return kitfile_of(contents), _json(config_of(contents)), _json(annotations_of(contents, sizes))


def _check(target: Path, bundle: Path) -> None:
    if target.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            "the file would be in the bundle, whose files a signature covers",
            where=target,
            hint="choose a path outside the bundle",
        )
    check_place(target)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1) + "\n"
