"""`load`: a bundle's network, ready to classify images in an application."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement import probabilities, top_k
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.geometry import crop
from cnnx.data.given import Given, as_image, each_of
from cnnx.data.normalize import normalize
from cnnx.errors import ImageError, UsageError
from cnnx.pipeline.target import open_subject
from cnnx.record import Subject

_BATCH = 32  # more images at a time take more memory, and little less time


@dataclass(frozen=True, slots=True)
class Guess:
    """A class and its probability.

    Attributes:
        index: class index.
        name: class name; the index as text if the bundle has no names.
        probability: softmax of the logits.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What a network says about N images.

    Attributes:
        logits: (N, classes) float32.
        names: name of each class; indices as text if the bundle has no names.
    """

    logits: NDArray[np.float32]
    names: tuple[str, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, classes) softmax of the logits."""
        return probabilities(self.logits)

    def top(self, count: int = 5) -> list[list[Guess]]:
        """The most probable classes of each image, best first; equal logits by class index.

        Raises:
            UsageError: `count` is below 1.
        """
        if count < 1:
            raise UsageError(f"invalid number of classes {count}", hint="give 1 or more")
        likely = self.probabilities
        return [
            [Guess(index, self.names[index], float(row[index])) for index in best]
            for row, best in zip(likely, top_k(self.logits, count).tolist(), strict=True)
        ]


class Classifier:
    """A bundle's engine or graph, opened on this machine; made by `cnnx.load`.

    A context manager. Several threads may share one: calls wait for each other, as engines run one batch at a
    time. Preprocessing happens outside that lock.

    Attributes:
        bundle: the bundle.
        subject: engine or graph, runtime and device.
        names: name of each class; indices as text if the bundle has no names.
        output_names: names of the outputs.
        batch: images that are run at a time.
        remarks: sentences about the choice of engine and device.
    """

    def __init__(self, bundle: Bundle, *, target: str = "auto", engine: str | None = None) -> None:
        opened = open_subject(bundle, target, engine=engine)
        self.bundle = bundle
        self.subject: Subject = opened.subject
        self.remarks = opened.remarks
        self.names = bundle.labels or tuple(map(str, range(bundle.manifest.classes)))
        self._recipe = recipe_of(bundle.manifest)
        self._session = opened.open()
        self.batch = min(_BATCH, opened.batch[2] if opened.batch else bundle.manifest.batch[1])
        self.output_names: tuple[str, ...] = self._session.output_names
        self._logits = bundle.manifest.outputs[0].name
        self._lock = threading.Lock()

    def predict(self, images: Given | Sequence[Given]) -> Predictions:
        """Classify one image or several.

        Args:
            images: a path, a Pillow image, a uint8 array (H, W, C) in RGB or (H, W) in gray, or a uint8
                PyTorch tensor (C, H, W); or a sequence of them, or an array or tensor with N in front. Each
                is resized and cropped as the bundle states.

        Raises:
            ImageError: an image cannot be read, or is of another type or shape.
            MissingExtra: the bundle resamples as OpenCV does, and OpenCV is not installed.
        """
        crops = [self.crop(each) for each in each_of(images)]
        return self.predict_crops(np.stack(crops) if crops else np.empty((0, 1, 1, 1), np.uint8))

    def crop(self, image: Given) -> NDArray[np.uint8]:
        """The pixels of one image that the network sees, (H, W, C), before they are normalized.

        Raises:
            ImageError: see `predict`.
        """
        return crop(as_image(image), self._recipe.preprocessing, self._recipe.input.shape)

    def predict_crops(self, crops: NDArray[np.uint8]) -> Predictions:
        """Classify crops (N, H, W, C), as `crop` makes them.

        Raises:
            ImageError: there are none.
        """
        if len(crops) == 0:
            raise ImageError("no images were given", hint="give at least one image")
        parts = [
            self.run(normalize(crops[start : start + self.batch], self._recipe.preprocessing))
            for start in range(0, len(crops), self.batch)
        ]
        return Predictions(np.concatenate([part[self._logits] for part in parts]), self.names)

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run images that are already preprocessed.

        Args:
            images: float32 (N, C, H, W), normalized as the manifest states.

        Returns:
            Outputs by name, batch axis first.
        """
        with self._lock:
            return self._session.run(np.ascontiguousarray(images, np.float32))

    def close(self) -> None:
        """Free the memory. Running afterwards is an error."""
        with self._lock:
            self._session.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(bundle: str | Path, *, target: str = "auto", engine: str | None = None) -> Classifier:
    """Check every hash of a bundle, and open the engine or graph that runs here.

    Args:
        bundle: the bundle's folder.
        target: "auto" or a runtime's name.
        engine: identity of the engine to open; None: the fastest that runs here, else the graph.

    Returns:
        A classifier. `predict` takes images, `run` takes preprocessed float32 (N, C, H, W).

    Raises:
        BundleError: the bundle is damaged, or all its engines are for another machine.
        EnvironmentLacks: the runtime cannot run here.
        UsageError: the bundle has no such engine.

    Examples:
        >>> with cnnx.load("lenet5-int8") as net:
        ...     found = net.predict(np.zeros((28, 28), np.uint8))
        >>> found.logits.shape, len(found.top()[0])
        ((1, 10), 5)
    """
    return Classifier(Bundle.open(Path(bundle)), target=target, engine=engine)
