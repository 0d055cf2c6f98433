"""Image sets: ordered sequences of items with a name, a digest and a decoder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar, overload

from PIL import Image, UnidentifiedImageError

from cnnx.errors import ImageError
from cnnx.limits import MAX_PIXELS
from cnnx.store.digests import digest_of_file
from cnnx.store.reading import open_regular

_SCALE_DOWN = "scale the image down, or leave it out"

Split = Literal["train", "calibration", "selection", "validation"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are decoded, whatever a file is named.

Pillow would start Ghostscript for EPS, and unpack images in ICO and ICNS before it knows their size.
"""

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File suffixes of images in a folder, in lower case. A list may name files with any suffix."""


class ImageItem(Protocol):
    """One image of a set."""

    @property
    def id(self) -> str:
        """Name in the set: the path relative to the set's folder, with forward slashes."""
        ...

    @property
    def label(self) -> int | None:
        """Class index, or None if unknown."""
        ...

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the file's content or of all inputs of a generated image.

        Raises:
            ImageError: the file cannot be read.
        """
        ...

    def load(self) -> Image.Image:
        """Decode the image.

        Raises:
            ImageError: the image cannot be read or decoded, or is larger than `MAX_PIXELS`.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images in a fixed order, and their origin.

    Attributes:
        name: name of a built-in set, or the last part of the folder's or list's path.
        source: origin and licence of the images.
        items: the images.
        class_names: name of each label, if known.
        synthetic: whether the images are generated substitutes for photographs, which support no verdict.
        note: message for the user about the set, such as why its labels are ignored, or "".
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
    """Images that are created on access."""

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
    """Return the images without their labels, for a network with other classes."""
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
    """An image file; implements `ImageItem`."""

    id: str
    path: Path
    label: int | None = None

    def digest(self) -> str:
        """Return the SHA-256, in hex, of the file's content."""
        try:
            return digest_of_file(self.path)
        except OSError as error:
            raise ImageError(
                f"cannot be read: {error.strerror}",
                where=self.path,
                hint="check that the file exists and is readable, or leave it out",
            ) from None

    def load(self) -> Image.Image:
        """Decode the first frame, as stored: EXIF orientation is not applied (see `cnnx.data.crops`)."""
        try:
            with open_regular(self.path) as file, Image.open(file, formats=FORMATS) as image:
                _refuse_oversized(image, self.path)
                if image.format == "PNG":
                    _check_chunks(file)
                image.load()
                return image
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(
                f"the image is too large: more than {MAX_PIXELS:,} pixels", where=self.path, hint=_SCALE_DOWN
            ) from None
        # Pillow's decoders raise nearly anything on damaged files: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)
            reason = f"not one of the formats {', '.join(FORMATS)}" if unknown else error
            raise ImageError(
                f"cannot be decoded: {reason}",
                where=self.path,
                hint="copy the file again from its source, convert it to PNG, or leave it out",
            ) from error


def _check_chunks(file: BinaryIO) -> None:
    """Raise for a PNG with a wrong checksum: Pillow ignores that of the pixels when it decodes them."""
    place = file.tell()
    file.seek(0)
    with Image.open(file, formats=("PNG",)) as image:
        image.verify()
    file.seek(place)


def _refuse_oversized(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the image is too large: {width} x {height} pixels, more than {MAX_PIXELS:,}",
            where=path,
            hint=_SCALE_DOWN,
        )


Item = TypeVar("Item", bound=ImageItem)


def spread(items: Iterable[Item]) -> list[Item]:
    """Return the items sorted by the SHA-256 of their names.

    The first n items are a sample of the whole set, and an added image does not move the others.
    """
    return sorted(items, key=lambda item: hashlib.sha256(name_bytes(item.id)).digest())


def name_bytes(name: str) -> bytes:
    """Return a file name as UTF-8, or as its raw bytes if it is not valid UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def printable(name: str) -> str:
    """Return a file name that can be printed and stored: invalid UTF-8 becomes escapes such as \\xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
