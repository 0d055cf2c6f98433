"""Brings the input into one form: a single float32 tensor (N, C, H, W)."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, helper

from cnnx.graph import edit

BATCH = "batch"
"""Name of a batch that is not fixed."""

_IMAGE_CHANNELS = (1, 3)
_TO_NCHW = [0, 3, 1, 2]


def to_float_nchw(model: ModelProto) -> tuple[bool, bool]:
    """Make an image input float32 and (N, C, H, W), if it is uint8, FP16 or (N, H, W, C). Edits in place.

    A graph whose input is none of these is left for `input_shape` to refuse.

    Returns:
        whether the input was uint8 pixels, and whether it was (N, H, W, C).
    """
    inputs = edit.data_inputs(model.graph)
    if len(inputs) != 1:
        return False, False
    (image,) = inputs
    pixels = image.type.tensor_type.elem_type == TensorProto.UINT8
    if pixels:
        image.type.tensor_type.elem_type = edit.FLOAT  # the graph's own Cast then changes nothing
    nhwc = _is_nhwc(edit.value_type(image).shape)
    if nhwc:
        _transpose(model, image)
    return pixels, nhwc


def name_batch(model: ModelProto) -> None:
    """Name a batch that is not a positive number "batch", in place; outputs lose their declared lengths.

    Exporters write 0, -1 or nothing for a free batch, and often declare outputs of another batch.
    """
    for value in edit.data_inputs(model.graph):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value <= 0:
            dims[0].dim_param = BATCH
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("value")
    del model.graph.value_info[:]


def _is_nhwc(shape: tuple[int | str | None, ...] | None) -> bool:
    return (
        shape is not None
        and len(shape) == 4
        and shape[3] in _IMAGE_CHANNELS
        and shape[1] not in _IMAGE_CHANNELS
    )


def _transpose(model: ModelProto, image: ValueInfoProto) -> None:
    """Put a Transpose in front; drop the graph's own to (N, C, H, W) instead if nothing else reads it."""
    readers = edit.wiring(model.graph).consumers.get(image.name, [])
    shape = image.type.tensor_type.shape
    shape.CopyFrom(TensorShapeProto(dim=[shape.dim[axis] for axis in _TO_NCHW]))
    if readers and all(_is_to_nchw(node) for node in readers):
        for node in readers:
            node.op_type = "Identity"
            del node.attribute[:]
        return
    name = edit.Names(model.graph).fresh(f"{image.name}.nhwc")
    edit.rename_input(readers, image.name, name)
    back = helper.make_node("Transpose", [image.name], [name], name=name, perm=[0, 2, 3, 1])
    edit.replace_nodes(model.graph, [back, *model.graph.node])


def _is_to_nchw(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and list(edit.attribute(node, "perm", [])) == _TO_NCHW
