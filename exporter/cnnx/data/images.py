"""What a set of pictures is: an ordered sequence of items that can be named, hashed and loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, overload

from PIL import Image, UnidentifiedImageError

from cnnx.errors import ImageError
from cnnx.store.digests import digest_of_file

Split = Literal["train", "calibration", "selection", "validation"]

MAX_PIXELS = 50_000_000
"""Larger pictures are refused by their header, before memory is spent on them."""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What counts as a picture in a folder, in lower case; a list may name files of any ending."""


class ImageItem(Protocol):
    """One picture of a set."""

    @property
    def id(self) -> str:
        """Its name in the set: the path relative to the set's folder, with forward slashes."""
        ...

    @property
    def label(self) -> int | None:
        """Index of its class, where known."""
        ...

    def digest(self) -> str:
        """SHA-256, in hex, of the file's content, or of all that a made picture follows from.

        Raises:
            ImageError: the file cannot be read.
        """
        ...

    def load(self) -> Image.Image:
        """The picture, decoded.

        Raises:
            ImageError: it cannot be read or decoded, or is larger than `MAX_PIXELS`.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Pictures in a fixed order, and where they come from.

    Attributes:
        name: a built-in's name, or the last part of the folder's or list's path.
        source: who made the pictures and under which terms, in words.
        items: the pictures.
        class_names: the name of each label, where known.
        synthetic: whether a program made them to stand in for photographs: no verdict rests on such.
        note: what its user should be told of it, such as why its labels are not used.
    """

    name: str
    source: str
    items: Sequence[ImageItem]
    class_names: tuple[str, ...] | None = None
    synthetic: bool = False
    note: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ImageItem:
        return self.items[index]

    def __iter__(self) -> Iterator[ImageItem]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Made(Sequence[ImageItem]):
    """Pictures that are each made when asked for."""

    length: int
    make: Callable[[int], ImageItem]

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> ImageItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageItem]: ...
    def __getitem__(self, index: int | slice) -> ImageItem | Sequence[ImageItem]:
        chosen = range(self.length)[index]
        return [self.make(each) for each in chosen] if isinstance(chosen, range) else self.make(chosen)


def unlabelled(items: Sequence[ImageItem]) -> Sequence[ImageItem]:
    """Pictures of a set whose labels mean other classes than a network's."""
    return Made(len(items), lambda index: _WithoutLabel(items[index]))


@dataclass(frozen=True, slots=True)
class _WithoutLabel:
    item: ImageItem
    label: int | None = None

    @property
    def id(self) -> str:
        return self.item.id

    def digest(self) -> str:
        return self.item.digest()

    def load(self) -> Image.Image:
        return self.item.load()


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture in a file: an `ImageItem`."""

    id: str
    path: Path
    label: int | None = None

    def digest(self) -> str:
        """SHA-256, in hex, of the file's content."""
        try:
            return digest_of_file(self.path)
        except OSError as error:
            raise ImageError(f"cannot be read: {error.strerror}", where=self.path) from None

    def load(self) -> Image.Image:
        """The first frame, as stored: EXIF orientation is not applied (see `cnnx.data.crops`)."""
        try:
            with Image.open(self.path) as picture:
                _refuse_oversized(picture, self.path)
                picture.load()
                return picture
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(f"has more than {MAX_PIXELS:,} pixels", where=self.path) from None
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            reason = "is no picture Pillow knows" if isinstance(error, UnidentifiedImageError) else error
            raise ImageError(f"cannot be decoded: {reason}", where=self.path) from error


def _refuse_oversized(picture: Image.Image, path: Path) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS:,}", where=path)


Item = TypeVar("Item", bound=ImageItem)


def spread(items: Iterable[Item]) -> list[Item]:
    """The items in the order of their names' SHA-256.

    The first n of them are a sample from all over the set, and adding a picture moves no other.
    """
    return sorted(items, key=lambda item: hashlib.sha256(name_bytes(item.id)).digest())


def name_bytes(name: str) -> bytes:
    """A file's name as UTF-8, or its own bytes where they are none."""
    return name.encode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """A file's name as it can be shown and kept: bytes that are no UTF-8 become escapes such as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
