"""Image files, a door for each format."""

from __future__ import annotations

import io
import random
import zlib
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tools.check.fuzz.bundled import small_bundle
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.mutators import pictures

_SIZE = (17, 12)
# Format: suffix, and the modes and options of its valid inputs.
_FORMATS: dict[str, tuple[str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "BMP": ("bmp", (("RGB", {}), ("L", {}), ("1", {}), ("P", {}), ("RGBA", {}))),
    "GIF": ("gif", (("P", {}), ("L", {}), ("RGB", {"interlace": 1}), ("P", {"save_all": True}))),
    "JPEG": ("jpg", (("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True, "subsampling": 2}))),
    "PNG": ("png", (("RGB", {}), ("L", {}), ("P", {}), ("RGBA", {}), ("1", {}), ("LA", {}))),
    "PPM": ("ppm", (("RGB", {}), ("L", {}), ("1", {}))),
    "TIFF": (
        "tif",
        (
            ("RGB", {}), ("L", {"compression": "tiff_lzw"}), ("RGB", {"compression": "tiff_deflate"}),
            ("RGB", {"compression": "jpeg"}), ("1", {"compression": "group4"}), ("CMYK", {}), ("RGBA", {}),
        ),
    ),
    "WEBP": ("webp", (("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {}), ("RGB", {"save_all": True}))),
}  # fmt: skip


class ImageDoor(Door):
    """Image files of one format."""

    formats: ClassVar[tuple[str, ...]] = tuple(_FORMATS)

    def __init__(self, form: str) -> None:
        self.form = form
        self.suffix, self.modes = _FORMATS[form]
        self.name, self.reads = form, f"an image, {form}"  # type: ignore[misc]

    def prepare(self) -> None:
        import cv2  # noqa: F401

        import cnnx.data.crops
        import cnnx.pipeline.classify.classify  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {
            f"{number}-{mode}".replace(";", ""): {f"a.{self.suffix}": _image(self.form, mode, options)}
            for number, (mode, options) in enumerate(self.modes)
        }

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        [(name, content)] = files.items()
        assert isinstance(content, bytes)
        changed, how = pictures.edit(dice, content)
        return {name: changed}, how

    def read(self, folder: Path) -> Any:
        """As exports and applications read it: decoded, resized and cropped."""
        from cnnx.data.geometry import crop
        from cnnx.data.images import ImageFile
        from cnnx.preprocessing import Preprocessing

        file = folder / f"a.{self.suffix}"
        image = ImageFile(file.name, file).load()
        pixels = crop(image, Preprocessing(resize=8, exif=True), (3, 8, 8))
        return image.size, image.mode, zlib.crc32(image.tobytes()), zlib.crc32(pixels.tobytes())

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """Another image. A PNG has checksums, and none of a chunk with pixels may be wrong."""
        content = (folder / f"a.{self.suffix}").read_bytes()
        if content.startswith(b"\x89PNG") and not _checksums_fit(content):
            return ""
        return "another image" + ("" if content.startswith(b"\x89PNG") else "; the format has no checksum")

    def command(self, folder: Path) -> list[str]:
        return ["classify", str(small_bundle()), str(folder / f"a.{self.suffix}")]


def _image(form: str, mode: str, options: dict[str, Any]) -> bytes:
    """A small image with noise and a gradient, as bytes."""
    import numpy as np
    from PIL import Image

    dice, (width, height) = random.Random(mode), _SIZE
    values = np.array([[dice.randrange(64) + 8 * x for x in range(width)] for _ in range(height)], np.uint8)
    image = Image.merge("RGB", [Image.fromarray(np.roll(values, shift)) for shift in (0, 3, 5)]).convert(mode)
    frames = {"append_images": [image.rotate(180)]} if options.get("save_all") else {}
    out = io.BytesIO()
    image.save(out, form, **options, **frames)
    return out.getvalue()


def _checksums_fit(content: bytes) -> bool:
    """Whether the checksums of a PNG's critical chunks, up to its end, are right."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunk, stated = content[at + 4 : at + 8 + length], content[at + 8 + length : at + 12 + length]
        if chunk[:1].isupper() and zlib.crc32(chunk) != int.from_bytes(stated, "big"):
            return False
        if chunk[:4] == b"IEND":
            return True
        at += 12 + length
    return False


DOORS = tuple(ImageDoor(form) for form in _FORMATS)
