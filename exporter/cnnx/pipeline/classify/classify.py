"""`classify`: the most probable classes of images, on whichever runtime is available here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cnnx.data.parallel import in_order
from cnnx.data.streams import Streamed, check_stream, stream_of
from cnnx.errors import ImageError, UsageError
from cnnx.options import takes
from cnnx.options.bundles import ClassifyOptions
from cnnx.pipeline.classify.classifier import Classifier, Guess, load
from cnnx.pipeline.progress import Listener, Progress, ProgressEvent, Steps, silent
from cnnx.record import Subject
from cnnx.report.result import Result
from cnnx.report.table import Block
from cnnx.report.tables.classify import classify_blocks

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Classified:
    """The classes of one image, best first; empty with a reason if it cannot be read."""

    image: str
    guesses: tuple[Guess, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class ClassifyResult(Result):
    """Classified images, in order.

    Attributes:
        subject: engine or graph, runtime and device.
        images: one for each image.
        images_per_second: with decoding and preprocessing, which run beside the network.
        network_images_per_second: of the network alone, with normalization.
    """

    subject: Subject
    images: tuple[Classified, ...]
    images_per_second: float
    network_images_per_second: float

    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """What the command prints."""
        return classify_blocks(self, verbose=verbose)


@takes(ClassifyOptions)
def classify(
    bundle: str | Path,
    images: str | Path | Sequence[str | Path],
    options: ClassifyOptions,
    *,
    listener: Listener = silent,
) -> ClassifyResult:
    """Classify image files, folders, videos or a camera's frames.

    Images are decoded on several threads while the network runs. One that cannot be read gives its reason in
    place of classes.

    Args:
        bundle: the bundle's folder.
        images: image files, folders (all images in them), videos, or "camera:0". Videos and cameras need
            OpenCV.
        options: options as an object; each can also be given by keyword.
        listener: receives progress events.

    Raises:
        BundleError: the bundle is damaged.
        ImageError: a path does not exist, or no image can be read.
        EnvironmentLacks: the named target cannot run here.
        MissingExtra: OpenCV is not installed, and a video or camera is named.
        UsageError: a camera without a number of images.

    Examples:
        >>> result = cnnx.classify("lenet5-int8", "photos", limit=2)
        >>> len(result.images), len(result.images[0].guesses)
        (2, 5)
    """
    if not images or (options.limit is not None and options.limit < 1) or options.top < 1:
        raise UsageError("nothing to classify", hint="give images, and 1 or more for limit and top")
    named = [str(each) for each in ([images] if isinstance(images, (str, Path)) else images)]
    total = check_stream(named, most=options.limit)
    steps = Steps(listener)
    signature = None if options.require_signature == () else options.require_signature
    with load(bundle, target=options.target, engine=options.engine, require_signature=signature) as net:
        for remark in net.remarks:
            listener(ProgressEvent(remark, note=True))

        def work(progress: Progress) -> ClassifyResult:
            return _classified(net, stream_of(named, most=options.limit), options.top, total, progress)

        found = steps.run("images", work)
    if all(each.reason for each in found.images):
        raise ImageError(
            f"no image can be read; the first: {found.images[0].reason}",
            where=found.images[0].image,
            hint="give images in a format such as JPEG or PNG",
        )
    return found


def _classified(
    net: Classifier, inputs: Iterator[Streamed], top: int, total: int | None, progress: Progress
) -> ClassifyResult:
    started, network = time.perf_counter(), 0.0
    found: list[Classified] = []
    for batch in _batches(in_order(partial(_cropped, net), inputs), net.batch):
        before = time.perf_counter()
        crops = [pixels for _, pixels, _ in batch if pixels is not None]
        guesses = iter(net.predict_crops(np.stack(crops)).top(top) if crops else [])
        network += time.perf_counter() - before
        found += [
            Classified(name, () if pixels is None else tuple(next(guesses)), reason)
            for name, pixels, reason in batch
        ]
        progress(len(found), total or 0)
    count = sum(not each.reason for each in found)
    whole = time.perf_counter() - started
    return ClassifyResult(net.subject, tuple(found), count / max(whole, 1e-9), count / max(network, 1e-9))


def _cropped(net: Classifier, given: Streamed) -> tuple[str, NDArray[np.uint8] | None, str]:
    """Name and pixels of an image, or the reason why it has none."""
    try:
        return given.name, net.crop(given.image), ""
    except ImageError as error:
        return given.name, None, error.what


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
