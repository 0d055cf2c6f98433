"""`load`: a bundle's network, ready to classify images in an application."""

from __future__ import annotations

import dataclasses
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
from cnnx.data.network_input import frames_of, network_input
from cnnx.errors import ImageError, UsageError
from cnnx.pipeline.sign.trust import Keys, keys_in, open_bundle
from cnnx.pipeline.target import open_subject
from cnnx.record import Subject
from cnnx.runtimes import Images

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
        self._input = self._recipe.preprocessing, self._recipe.input_format
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

        A graph that resizes sees the whole image if it has the size of its frames. Other images are resized
        and cropped first, and `network_input` makes frames of the crops.

        Raises:
            ImageError: see `predict`.
        """
        opened, shape, (preprocessing, form) = as_image(image), self._recipe.input.shape, self._input
        if (opened.height, opened.width) == form.frame:
            whole = dataclasses.replace(preprocessing, fit="none", resize=None)
            return crop(opened, whole, (shape[0], *form.frame))
        made = crop(opened, preprocessing, shape)
        if form.frame is None:
            return made
        frame: NDArray[np.uint8] = frames_of(made[None], preprocessing, form.frame)[0]
        return frame

    def predict_crops(self, crops: NDArray[np.uint8]) -> Predictions:
        """Classify crops (N, H, W, C), as `crop` makes them.

        Raises:
            ImageError: there are none.
        """
        if len(crops) == 0:
            raise ImageError("no images were given", hint="give at least one image")
        parts = [
            self.run(network_input(crops[start : start + self.batch], *self._input))
            for start in range(0, len(crops), self.batch)
        ]
        return Predictions(np.concatenate([part[self._logits] for part in parts]), self.names)

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Run a batch at the input of the graph, as an application without cnnx would.

        Args:
            images: what `inputs` of the manifest states: float32 (N, C, H, W), normalized; or uint8 pixels.

        Returns:
            Outputs by name, batch axis first.
        """
        with self._lock:
            return self._session.run(
                np.ascontiguousarray(images, None if images.dtype == np.uint8 else np.float32)
            )

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


def load(
    bundle: str | Path,
    *,
    target: str = "auto",
    engine: str | None = None,
    require_signature: Keys | None = None,
) -> Classifier:
    """Check every hash of a bundle, and open the engine or graph that runs here.

    Args:
        bundle: the bundle's folder.
        target: "auto" or a runtime's name.
        engine: identity of the engine to open; None: the fastest that runs here, else the graph.
        require_signature: a file with a public key or root certificates (PEM), or several, any of which may
            have signed. A bundle or engine that is not signed is refused before it is loaded. None: no
            signature is required.

    Returns:
        A classifier. `predict` takes images, `run` takes batches as the graph does.

    Raises:
        BundleError: the bundle is damaged, or not signed as required, or all its engines are for another
            machine.
        EnvironmentLacks: the runtime cannot run here.
        MissingExtra: a signature is required, and model-signing is not installed.
        UsageError: the bundle has no such engine, or a key cannot be used.

    Examples:
        >>> with cnnx.load("lenet5-int8") as net:
        ...     found = net.predict(np.zeros((28, 28), np.uint8))
        >>> found.logits.shape, len(found.top()[0])
        ((1, 10), 5)
    """
    if require_signature is not None and not keys_in(require_signature):
        raise UsageError("require_signature has no key", hint="give a public key, or None to require none")
    keys = () if require_signature is None else require_signature
    return Classifier(open_bundle(Path(bundle), keys), target=target, engine=engine)
