"""Preprocessing in words."""

from __future__ import annotations

from collections.abc import Sequence

from cnnx.preprocessing import Preprocessing
from cnnx.preprocessing.input_format import InputFormat


def described(
    preprocessing: Preprocessing, shape: tuple[int, int, int], form: InputFormat | None = None
) -> str:
    """The whole preprocessing in words.

    Args:
        preprocessing: from an image to the network.
        shape: channels, height and width of the network's input.
        form: what the graph takes; None: normalized floats.
    """
    exif = "EXIF orientation applied" if preprocessing.exif else "EXIF orientation ignored"
    resize = [
        *_resized_in_words(preprocessing, in_graph=form is not None and form.frame is not None),
        f"center crop of {shape[1]} x {shape[2]}{_padding_in_words(preprocessing)}",
    ]
    arithmetic = (
        f"(x / {preprocessing.divisor:g} - mean) / std with mean {_listed(preprocessing.mean)} and "
        f"std {_listed(preprocessing.std)}"
    )
    if form is None or not form.is_raw:
        return "; ".join([_color(preprocessing.color), *resize, arithmetic, "float32 NCHW", exif])
    outside, inside = (
        (resize, []) if form.frame is None else (["images of {} x {}".format(*form.frame)], resize)
    )
    taken = f"uint8 {form.layout}"
    return "; ".join(
        [_color(form.color), *outside, taken, exif, f"in the graph: {'; '.join([*inside, arithmetic])}"]
    )


def _color(color: str) -> str:
    return "gray" if color == "gray" else color.upper()


def _resized_in_words(preprocessing: Preprocessing, *, in_graph: bool) -> Sequence[str]:
    if preprocessing.box is None:
        return ["not resized"]
    one = isinstance(preprocessing.resize, int)
    size = str(preprocessing.resize) if one else "{} x {}".format(*preprocessing.box)
    how = {
        "shorter": f"shorter side to {size}" if one else f"resized to cover {size}",
        "longer": f"longer side to {size}" if one else f"resized to fit into {size}",
        "letterbox": "resized to fit into {} x {}".format(*preprocessing.box),
        "squash": "squashed to {} x {}".format(*preprocessing.box),
    }[preprocessing.fit]
    if in_graph:
        return [f"{how} ({preprocessing.interpolation}, not antialiased)"]
    pillow = preprocessing.resampling == "pillow"
    smooth = "" if preprocessing.interpolation == "nearest" else ", antialiased" if pillow else ""
    return [f"{how} ({preprocessing.interpolation}, {'Pillow' if pillow else 'OpenCV'}{smooth})"]


def _padding_in_words(preprocessing: Preprocessing) -> str:
    pads = preprocessing.fit in ("longer", "letterbox", "none")
    return f", padded with {_listed(preprocessing.fill)}" if pads else ""


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
