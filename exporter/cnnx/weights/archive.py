"""Checks the ZIP archive of a checkpoint, which PyTorch maps into memory without looking at its checksums."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from cnnx.errors import WeightsError

_AGAIN = "copy or download it again"


def check_archive(file: Path) -> None:
    """Refuse an archive that is compressed or damaged, or whose values are not as long as their tensors.

    PyTorch never compresses: mapped into memory, packed tensors would be garbage, and a small file could
    unpack to any size.

    Raises:
        WeightsError: it is such an archive.
        zipfile.BadZipFile: it cannot be read, or one of the errors of `zipfile` for damaged files.
    """
    with zipfile.ZipFile(file) as archive:
        if packed := [
            each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED
        ]:
            raise WeightsError(
                f"the checkpoint is a compressed archive ({packed[0]})",
                where=file,
                hint="unpack it and give the .pth or .pt file inside, or save it again with torch.save",
            )
        # torch.serialization.set_crc32_options(False) leaves all of them 0.
        if any(each.CRC for each in archive.infolist()) and (wrong := archive.testzip()):
            what = f"the checkpoint is damaged: {wrong} has a wrong checksum"
            raise WeightsError(what, where=file, hint=_AGAIN)
        for name, size in _storages(archive):
            if archive.getinfo(name).file_size != size:
                found = f"{archive.getinfo(name).file_size:,} bytes, but its tensors need {size:,}"
                raise WeightsError(f"the checkpoint is damaged: {name} has {found}", where=file, hint=_AGAIN)


class _Inert(dict[Any, Any]):
    """What a pickle makes of any class or function: it does nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def append(self, *_: object) -> None:
        """Do nothing."""

    extend = __setstate__ = append


class _Storages(pickle._Unpickler):
    """Follows a pickle without running anything of it, and collects the storages that it refers to.

    In Python, as the one in C can be made to allocate any amount of memory.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.found: list[tuple[str, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        return name if module.startswith("torch") and name.endswith("Storage") else _Inert

    def persistent_load(self, pid: Any) -> Any:
        """Note the key of a storage and its size in bytes; see torch.serialization.persistent_id."""
        _, kind, key, _, count = pid
        dtype = getattr(getattr(torch, kind, None), "dtype", torch.uint8)
        self.found.append((str(key), int(count) * dtype.itemsize))
        return _Inert()


def _storages(archive: zipfile.ZipFile) -> Iterator[tuple[str, int]]:
    """Member and size in bytes of each storage; none if the pickle is damaged, which PyTorch refuses."""
    names = set(archive.namelist())
    for name in names:
        root, slash, last = name.rpartition("/")
        if last != "data.pkl":
            continue
        reader = _Storages(archive.read(name))
        try:
            reader.load()
        except Exception:  # a pickle can raise anything
            return
        for key, size in reader.found:
            if (member := f"{root}{slash}data/{key}") in names:
                yield member, size
