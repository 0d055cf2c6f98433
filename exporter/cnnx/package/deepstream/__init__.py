"""Configuration of DeepStream's nvinfer as a classifier of whole frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnx.bundle import MODEL, Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.errors import BundleError
from cnnx.graph.load import load_model, save_model
from cnnx.graph.passes.raw_input import with_raw_input, with_softmax
from cnnx.package.conditions import pads, refuse_large_batches, refuse_pixels
from cnnx.package.copies import fill_in
from cnnx.package.graphs import DIFFERENCE, Difference, compared
from cnnx.package.seen import seen
from cnnx.package.words import class_names, safe_name, trtexec
from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.input_format import InputFormat
from cnnx.preprocessing.words import described

_PROGRAM = Path(__file__).parent / "program"
_CONSUMER = "DeepStream's nvinfer"
_FRAMES = ((1920, 1080), (3840, 2160), (1280, 720), (640, 480))
_COLORS = {"rgb": 0, "bgr": 1}
_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
# NvBufSurfTransform_Inter: nearest, bilinear, and Algo1, which is cubic on a GPU.
_FILTERS = {"nearest": 0, "bilinear": 1, "bicubic": 2}


def write(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """See `cnnx.package.Adapter`."""
    bundle.verify()
    refuse_pixels(bundle, _CONSUMER)
    refuse_large_batches(bundle, _CONSUMER)
    padded, crops = pads(bundle, _CONSUMER), _crops(bundle)
    recipe, manifest = recipe_of(bundle.manifest), bundle.manifest
    preprocessing, (_, height, width) = recipe.preprocessing, recipe.input.shape
    color = "bgr" if preprocessing.color == "bgr" else "rgb"
    difference = _change_graph(bundle, folder / MODEL, color=color)
    names = (name.replace(";", ",") for name in class_names(bundle))
    (folder / "labels.txt").write_text(";".join(names) + "\n", encoding="utf-8")
    fill_in(
        _PROGRAM / "config_infer.txt",
        folder / "config_infer.txt",
        batch=manifest.batch[1],
        mode=_MODES[manifest.precision],
        height=height,
        width=width,
        color=_COLORS[color],
        padded=int(padded),
        filter=_FILTERS.get(preprocessing.interpolation, 1),
    )
    fill_in(
        _PROGRAM / "README.md",
        folder / "README.md",
        name=safe_name(bundle),
        trtexec=trtexec(bundle, onnx=MODEL, engine="model.engine"),
        frame=next(iter(crops)),
        pipeline=_pipeline(next(iter(crops.values()))),
        crops="\n".join(f"| {frame} | `{crop}` |" for frame, crop in crops.items()),
        preprocessing=described(preprocessing, recipe.input.shape, recipe.input_format),
        difference=difference,
        file=DIFFERENCE,
    )
    return (str(difference),)


def _change_graph(bundle: Bundle, out: Path, *, color: str) -> Difference:
    """Write a graph that takes pixels as nvinfer gives them and has probabilities."""
    recipe = recipe_of(bundle.manifest)
    form = InputFormat("float32", "NCHW", "bgr" if color == "bgr" else "rgb")
    model = with_raw_input(load_model(bundle.model), form, recipe.preprocessing, shape=recipe.input.shape)
    save_model(with_softmax(model), out)

    def feed(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What nvinfer makes of pixels with net-scale-factor=1 and no offsets."""
        pixels = np.repeat(crops, 3, axis=3) if crops.shape[3] == 1 else crops
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2).astype(np.float32))

    gray = "gray from RGB, " if recipe.preprocessing.color == "gray" else ""
    return compared(
        bundle, out, feed, changes=f"{gray}normalization and Softmax are in the graph", softmax=True
    )


def src_crop(preprocessing: Preprocessing, size: tuple[int, int], frame: tuple[int, int]) -> str | None:
    """nvvideoconvert's src-crop: the part of a frame that the network sees, in even numbers as NV12 needs.

    Args:
        preprocessing: the network's.
        size: height and width of the network's input.
        frame: width and height of the frame.

    Returns:
        left:top:width:height; None if the frame is too small for a network that does not resize.
    """
    (left, top, right, bottom), place = seen(
        *frame, fit=preprocessing.fit, resize=preprocessing.resize, size=size
    )
    if preprocessing.resize is None and place != (0, 0, size[1], size[0]):
        return None
    starts = [2 * round(start / 2) for start in (left, top)]
    lengths = [2 * round(length / 2) for length in (right - left, bottom - top)]
    return ":".join(map(str, (*starts, *lengths)))


def _pipeline(crop: str) -> str:
    wide, high = crop.split(":")[2:]
    return " \\\n  ".join(
        [
            "gst-launch-1.0 uridecodebin uri=file:///path/to/video.mp4 !",
            f"nvvideoconvert src-crop={crop} !",
            f"'video/x-raw(memory:NVMM),format=NV12,width={wide},height={high}' !",
            f"mux.sink_0 nvstreammux name=mux batch-size=1 width={wide} height={high} !",
            "nvinfer config-file-path=config_infer.txt ! nvvideoconvert ! nvdsosd ! nveglglessink",
        ]
    )


def _crops(bundle: Bundle) -> dict[str, str]:
    """Size of frames -> src-crop.

    Raises:
        BundleError: the network needs larger frames than cameras give.
    """
    recipe = recipe_of(bundle.manifest)
    size = recipe.input.shape[1:]
    found = {
        f"{frame[0]} x {frame[1]}": crop
        for frame in _FRAMES
        if (crop := src_crop(recipe.preprocessing, size, frame)) is not None
    }
    if not found:
        raise BundleError(
            f"the network takes {size[1]} x {size[0]} pixels of frames that are not resized, and frames of "
            f"{max(_FRAMES)[0]} x {max(_FRAMES)[1]} are smaller",
            where=bundle.path,
            hint="export again with a preprocessing that resizes",
        )
    return found
