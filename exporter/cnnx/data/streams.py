"""Streams of images by name: files, folders, videos and cameras."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.data.images import SUFFIXES
from cnnx.errors import ImageError, MissingExtra, UsageError

VIDEOS = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
"""File suffixes of videos, in lower case."""

_CAMERA = "camera:"


@dataclass(frozen=True, slots=True)
class Streamed:
    """One image of a stream.

    Attributes:
        name: path of the file; for a video or camera, with the number of the frame.
        image: what `cnnx.data.given.as_image` takes.
    """

    name: str
    image: Any


def stream_of(arguments: Sequence[str], *, most: int | None = None) -> Iterator[Streamed]:
    """The images that arguments name, in order.

    Args:
        arguments: image files, folders (all images in them, sorted by path), videos, or "camera:0".
        most: number of images after which to stop.

    Raises:
        ImageError: a path does not exist, a folder holds no image, or a video or camera cannot be opened.
        MissingExtra: a video or camera is named, and OpenCV is not installed.
        UsageError: a camera without a number of images: it never ends.
    """
    found = (each for argument in arguments for each in _of(argument, most=most))
    for count, each in enumerate(found):
        if most is not None and count >= most:
            return
        yield each


def check_stream(arguments: Sequence[str], *, most: int | None) -> int | None:
    """Check that arguments exist; return the number of images, or None if only their end tells.

    Raises: see `stream_of`.
    """
    total: int | None = 0
    for argument in arguments:
        if argument.startswith(_CAMERA) or Path(argument).suffix.lower() in VIDEOS:
            _check_frames(argument, most=most)
            total = None
        elif total is not None:
            total += sum(1 for _ in _files(argument))
        else:
            next(_files(argument))
    if most is not None:
        return most if total is None else min(total, most)
    return total


def _of(argument: str, *, most: int | None) -> Iterator[Streamed]:
    if argument.startswith(_CAMERA) or Path(argument).suffix.lower() in VIDEOS:
        _check_frames(argument, most=most)
        yield from _frames(argument)
    else:
        yield from (Streamed(str(file), file) for file in _files(argument))


def _files(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_file():
        yield path
    elif path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not found:
            suffixes = ", ".join(sorted(SUFFIXES))
            raise ImageError(
                "the folder contains no images",
                where=path,
                hint=f"give a folder with files ending in {suffixes}",
            )
        yield from found
    else:
        raise ImageError(
            "no such file or folder",
            where=path,
            hint="give an image, a folder of images, a video, or camera:0",
        )


def _check_frames(argument: str, *, most: int | None) -> None:
    if importlib.util.find_spec("cv2") is None:
        raise MissingExtra("opencv-python-headless", "opencv", purpose="videos and cameras")
    if not argument.startswith(_CAMERA):
        next(_files(argument))
    elif not argument.removeprefix(_CAMERA).isdecimal():
        raise UsageError(f"invalid camera {argument!r}", hint="give its number, such as camera:0")
    elif most is None:
        raise UsageError("a camera has no end", where=argument, hint="say how many frames: --limit 100")


def _frames(argument: str) -> Iterator[Streamed]:
    """Frames of a video or camera, as RGB arrays (H, W, 3)."""
    import cv2

    source: Any = int(argument.removeprefix(_CAMERA)) if argument.startswith(_CAMERA) else argument
    capture = cv2.VideoCapture(source)
    with contextlib.ExitStack() as stack:
        stack.callback(capture.release)
        if not capture.isOpened():
            hint = "check that it is connected and not in use, or that another program can play it"
            raise ImageError("OpenCV cannot open it", where=argument, hint=hint)
        number = 0
        while True:
            read, frame = capture.read()
            if not read:
                break
            yield Streamed(f"{argument} frame {number}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            number += 1
    if number == 0:
        raise ImageError("it has no frames", where=argument, hint="check that another program can play it")
