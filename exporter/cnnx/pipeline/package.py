"""`package`: a folder in which a consumer, such as Triton or a C++ program, can use a bundle as it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnx.errors import UsageError
from cnnx.options import takes
from cnnx.options.bundles import PackageOptions
from cnnx.package import adapter_of
from cnnx.pipeline.sign.trust import open_bundle
from cnnx.report.result import Result
from cnnx.report.table import Block, Facts, Remark
from cnnx.report.words import several
from cnnx.store.files import atomic_folder, check_folder


@dataclass(frozen=True, slots=True, repr=False)
class PackageResult(Result):
    """A package that was written.

    Attributes:
        folder: where it was written.
        consumer: what will use it.
        files: its files, by path in the folder.
        notes: notes for the user.
    """

    folder: Path
    consumer: str
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        files = ", ".join(self.files) if verbose else several(len(self.files), "file")
        rows = {"package": str(self.folder), "for": self.consumer, "files": files}
        yield Facts((*rows.items(), ("next", f"read {self.folder / 'README.md'}")))
        for note in self.notes:
            yield Remark(note, "note", "open")


@takes(PackageOptions)
def write_package(bundle: str | Path, options: PackageOptions) -> PackageResult:
    """Write a folder in which a consumer can use a bundle as it is, with a README.

    If the consumer needs a changed graph, it is compared with the bundle's on the self-test, and the
    difference is recorded in difference.json.

    Args:
        bundle: the bundle's folder.
        options: options as an object; each can also be given by keyword.

    Raises:
        BundleError: the bundle is damaged, or the consumer cannot use its network.
        UsageError: there is no such consumer, or the folder exists.
        WriteFailed: the folder cannot be written.
        MissingExtra: the graph must be compared, and ONNX Runtime is not installed.

    Examples:
        >>> result = cnnx.write_package("lenet5-int8", consumer="python", out="lenet5-python")
        >>> "classify.py" in result.files
        True
    """
    adapter = adapter_of(options.consumer)
    path = Path(bundle)
    opened = open_bundle(path, options.require_signature)
    out = Path(options.out) if options.out else Path(f"{path.resolve().name}-{options.consumer}")
    if out.exists() or out.is_symlink():
        raise UsageError("it exists already", where=out, hint="choose a new one with --out, or remove it")
    if out.resolve().is_relative_to(path.resolve()):
        raise UsageError("the folder would be in the bundle", where=out, hint="choose another with --out")
    check_folder(out)
    with atomic_folder(out) as draft:
        notes = adapter.write(opened, draft)
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    return PackageResult(out, options.consumer, tuple(files), notes)
