"""The canonical form of a network from elsewhere, which every later pass may assume.

- Opset 19 or 20 and IR version 10; local functions are inlined, and every node has a unique name.
- No initializer is listed as an input, and no Constant node, unused constant or optional output is left.
- One float32 input (N, C, H, W): N is a positive number, or the dimension "batch".
- Floating-point tensors are float32, and constants are finite.
- There is no Q/DQ; the scales of a file that had some are kept beside the graph.
- The logits, (N, classes) and not normalized by Softmax, are the first output; the others follow.
- What follows from constants and shapes is a constant, as far as it does not depend on the batch.
- Nothing is in training mode.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from cnnx.graph import edit
from cnnx.graph.constants import constants_to_initializers
from cnnx.graph.entry.file_scales import scales_by_layer, weight_scales
from cnnx.graph.entry.inputs import name_batch, to_float_nchw
from cnnx.graph.entry.logits import logits_first
from cnnx.graph.entry.qdq import take_scales
from cnnx.graph.entry.shapes import declare_outputs, fix_baked_batch, fold_known, refuse_huge
from cnnx.graph.entry.values import finite, refuse_training, widen
from cnnx.graph.entry.versions import convert_version, drop_listed_constants, drop_unread_outputs
from cnnx.graph.load import input_shape, located_in, name_nodes, parse_model, refuse_bad_constants
from cnnx.graph.scales import FileScales


@dataclass(frozen=True, slots=True)
class Network:
    """A network in canonical form.

    Attributes:
        model: the graph.
        digest: SHA-256 of the file's content, including external weights.
        logits: name of the first output.
        classes: number of logits.
        input_shape: (N, C, H, W); N is "batch" if it is not fixed.
        nhwc: whether the file takes (N, H, W, C).
        widened: whether the file's weights were not float32.
        pixels: whether the file takes 8-bit pixels, which the graph takes as float32 values 0..255.
        scales: scales of the file's Q/DQ; None if it had none, or they are still in the graph.
        notes: notes for the user, such as which of several outputs was chosen.
    """

    model: ModelProto
    digest: str
    logits: str
    classes: int
    input_shape: tuple[int | str | None, int, int, int]
    nhwc: bool
    widened: bool
    pixels: bool
    scales: FileScales | None
    notes: tuple[str, ...]


def unquantized(path: Path) -> ModelProto:
    """The graph of a file without its Q/DQ, otherwise as it is.

    Raises:
        GraphError: as `read_network`.
    """
    model = parse_model(path)
    with located_in(path):
        drop_listed_constants(model)
        constants_to_initializers(model)
        take_scales(model)
    return model


def read_network(
    path: Path, *, logits: str = "", classes: int | None = None, keep_qdq: bool = False
) -> Network:
    """Read an ONNX classifier of any opset from 7, and bring it into canonical form.

    Args:
        path: the file; its weights may be in files next to it.
        logits: name of the output to judge by; "": chosen by shape, position and name.
        classes: the number of classes, if known, to choose the output by; None: unknown.
        keep_qdq: leave the Q/DQ of a quantized file in the graph, to run it as it is.

    Raises:
        GraphError: the file is missing, damaged or unsafe; or it is not a classifier that TensorRT can run.
    """
    model = parse_model(path)
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    with located_in(path):
        drop_listed_constants(model)
        constants_to_initializers(model)
        taken = None if keep_qdq else take_scales(model)
        drop_unread_outputs(model)
        refuse_training(model)
        pixels, nhwc = to_float_nchw(model)
        name_batch(model)
        convert_version(model)
        constants_to_initializers(model)
        widened = widen(model)
        input_shape(model)
        name_nodes(model)
        edit.check(model)
        refuse_huge(model)
        behind = weight_scales(model, taken) if taken else {}
        baked = fix_baked_batch(model)
        fold_known(model)
        finite(model)
    refuse_bad_constants(model, path)
    with located_in(path):
        classes, chosen = logits_first(model, wanted=logits, classes=classes)
        edit.drop_unread_nodes(model.graph)
        edit.drop_unread_initializers(model.graph)
        declare_outputs(model)
        edit.check(model)
        scales = scales_by_layer(model, taken, behind) if taken else None
        clips = len(taken.clipped) if taken else 0
    notes = [
        *(["the file takes 8-bit pixels; the bundle takes their values 0..255 as float32"] if pixels else []),
        *(["the file takes images as (N, H, W, C); the bundle takes (N, C, H, W)"] if nhwc else []),
        *([f"the file's {widened} weights were converted to float32"] if widened else []),
        *(["the file declares a free batch, but its shapes fix it at 1"] if baked else []),
        *([f"Q/DQ pairs that clip at 0 in place of a ReLU: {clips}; the bundle has Clips"] if clips else []),
        *chosen,
    ]
    return Network(
        model,
        digest,
        model.graph.output[0].name,
        classes,
        input_shape(model),
        nhwc=nhwc,
        widened=bool(widened),
        pixels=pixels,
        scales=scales,
        notes=tuple(notes),
    )
