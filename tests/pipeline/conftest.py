"""Fixtures that several tests of the pipeline share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cnnx.data.sets import open_images
from cnnx.pipeline.progress import Listener, ProgressEvent


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder of images, with 24 digits."""
    folder = tmp_path_factory.mktemp("images")
    digits = open_images("digits", size=32, color="gray", split="calibration")
    for index, item in enumerate(list(digits)[:24]):
        item.load().save(folder / f"{index:02}.png")
    return folder


@pytest.fixture
def stop_at() -> Callable[[str, int, list[int]], Listener]:
    """Returns a function that makes a listener, which records a step's progress and interrupts the step."""

    def make(step: str, limit: int, seen: list[int]) -> Listener:
        def listen(event: ProgressEvent) -> None:
            if event.step == step and event.done:
                seen.append(event.done)
                if event.done == limit:
                    raise KeyboardInterrupt

        return listen

    return make
