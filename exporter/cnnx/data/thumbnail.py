"""Thumbnails of images, for reports."""

from __future__ import annotations

import base64
import io

from PIL import Image

from cnnx.data.images import ImageItem
from cnnx.errors import ImageError

_SIDE, _TINY = 128, 64  # pixels


def thumbnail(item: ImageItem) -> str:
    """A thumbnail of at most 128 x 128 pixels as a data URL; empty if the image cannot be decoded.

    Images of at most 64 x 64 pixels stay as they are, as PNG; larger ones become JPEG.
    """
    try:
        image = item.load().convert("RGB")
    except (ImageError, OSError, ValueError):
        return ""
    buffer = io.BytesIO()
    if max(image.size) <= _TINY:
        kind = "png"
        image.save(buffer, kind)
    else:
        kind = "jpeg"
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(buffer, kind, quality=75)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
