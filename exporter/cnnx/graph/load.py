"""Reading an ONNX file that somebody else wrote, and writing one.

Such a file is data from a stranger: it can name other files anywhere on the disk as its weights, hold
operators nobody knows, or be no ONNX at all. What passes here is a plain classifier in one piece.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from cnnx.errors import GraphError
from cnnx.graph import edit

OPSET = 19  # the first with FP16 scales in Q/DQ; JetPack 6's parser and old ONNX Runtimes read it
IR_VERSION = 10  # ONNX Runtime for Python 3.10 refuses newer ones
OLDEST_OPSET, NEWEST_OPSET = 13, 23
_LIMIT = 2**31 - 1  # protobuf refuses longer messages


def load_model(path: Path) -> ModelProto:
    """Read a classifier: one float image input (N, C, H, W), one output (N, classes) at least.

    Every node of the result has a name of its own, local functions are inlined, and external weights
    are read in. Operator sets outside 13..23 are converted to 19.

    Raises:
        GraphError: no file, no ONNX, damaged, unsafe external data, an operator nobody knows, control
            flow, or not a classifier.
    """
    model = _parse(path)
    _read_external_data(model, path.resolve().parent)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _refuse_strange_nodes(model, path)
    version = edit.opset(model)
    normalise_version(model, version if OLDEST_OPSET <= version <= NEWEST_OPSET else OPSET, model.ir_version)
    name_nodes(model)
    edit.check(model)
    _refuse_bad_constants(model, path)
    _refuse_other_than_classifier(model, path)
    return model


def save_model(model: ModelProto, path: Path) -> None:
    """Write a model as one file.

    Raises:
        GraphError: it is longer than the 2 GiB protobuf can hold.
    """
    size = model.ByteSize()
    if size > _LIMIT:
        raise GraphError(f"the graph takes {size / 2**30:.1f} GiB; one ONNX file holds 2 GiB", where=path)
    path.write_bytes(model.SerializeToString(deterministic=True))


def normalise_version(model: ModelProto, opset: int = OPSET, ir: int = IR_VERSION) -> None:
    """Bring a model to one operator set and one IR version. Edits in place.

    The converter sees the graph without its large weights: it changes operators, not values.

    Raises:
        GraphError: onnx's converter cannot convert an operator.
    """
    found = edit.opset(model)
    if found != opset:
        try:
            converted = onnx.version_converter.convert_version(edit.skeleton(model), opset)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            what = f"operator set {found} cannot be converted to {opset}: {edit.first_line(error)}"
            raise GraphError(what, mend=f"export the model again with opset {opset}") from None
        known = {tensor.name for tensor in model.graph.initializer}
        added = [tensor for tensor in converted.graph.initializer if tensor.name not in known]
        edit.replace_nodes(model.graph, converted.graph.node)
        model.graph.initializer.extend(added)
        del model.graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.add(domain="", version=opset)
    model.ir_version = ir


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own, as plans and reports go by names. Edits in place.

    A node without one is called after its weight ("features.0.weight" -> "features.0"), else after its
    operator and output. Names that are unique stay.
    """
    constants = edit.initializers(model.graph)
    taken: set[str] = set()
    for node in model.graph.node:
        stem = node.name or weight_scope(node, constants) or f"{node.op_type}_{node.output[0]}"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        node.name = name


def weight_scope(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    """The layer a node's weight belongs to: "features.0" for "features.0.weight", None without one."""
    weight = str(node.input[1]) if len(node.input) > 1 else ""
    return weight.removesuffix(".weight") if weight in constants and weight.endswith(".weight") else None


def logits_name(model: ModelProto) -> str:
    """Name of the first output of shape (N, classes).

    Raises:
        GraphError: there is none.
    """
    types = edit.value_types(model)
    for value in model.graph.output:
        if types[value.name].rank == 2 and types[value.name].is_float:
            return str(value.name)
    shapes = ", ".join(f"{value.name} {types[value.name].shape}" for value in model.graph.output)
    raise GraphError(f"no output has the shape (N, classes): {shapes or 'there is none'}")


def input_shape(model: ModelProto) -> tuple[int | str | None, int, int, int]:
    """Shape (N, C, H, W) of the model's input; N is a name or None where the batch is free.

    Raises:
        GraphError: not one float input of rank 4 with fixed channels, height and width.
    """
    inputs = edit.data_inputs(model.graph)
    if len(inputs) != 1:
        listed = ", ".join(value.name for value in inputs) or "none"
        raise GraphError(f"a classifier has one input, this graph has {len(inputs)}: {listed}")
    kind = edit.value_type(inputs[0])
    if kind.elem_type != edit.FLOAT or kind.shape is None or len(kind.shape) != 4:
        word = TensorProto.DataType.Name(kind.elem_type)
        what = f"the input should be float32 of shape (N, C, H, W), it is {word} {kind.shape}"
        raise GraphError(what, where=inputs[0].name)
    batch, channels, height, width = kind.shape
    if not (isinstance(channels, int) and isinstance(height, int) and isinstance(width, int)):
        raise GraphError(
            f"channels, height and width must be fixed, the input is {kind.shape}",
            where=inputs[0].name,
            mend="export the model again with only the batch dynamic",
        )
    return batch, channels, height, width


def fix_batch(model: ModelProto, batch: int) -> None:
    """Give the input, and all that follows from it, one batch size. Edits the model in place."""
    edit.data_inputs(model.graph)[0].type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        if axes:
            axes[0].dim_value = batch


def _parse(path: Path) -> ModelProto:
    mend = "give an ONNX file of a classifier"
    if not path.is_file():
        raise GraphError("there is no such ONNX file", where=path, mend=mend)
    size = path.stat().st_size
    if not 0 < size <= _LIMIT:
        raise GraphError(
            f"an ONNX file has 1 byte to 2 GiB, this one has {size} bytes", where=path, mend=mend
        )
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise GraphError(
            "this is not ONNX, or a part of the file is missing", where=path, mend=mend
        ) from None
    if not model.graph.node or not model.opset_import:
        raise GraphError("this holds no ONNX graph, or a part of the file is missing", where=path, mend=mend)
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                yield entry.t


def _read_external_data(model: ModelProto, folder: Path) -> None:
    """Put weights that lie in files beside the model into it. Edits in place.

    Every place is judged before the first byte is read: a graph could otherwise name /etc/shadow, or a
    link to it, as a weight and so carry it into whatever is made of the model.
    """
    external = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    places = [_external_place(tensor, folder) for tensor in external]
    if sum(length for _, _, length in places) > _LIMIT:
        raise GraphError("the external weights take more than 2 GiB", where=folder)
    for tensor, (file, offset, length) in zip(external, places, strict=True):
        with os.fdopen(_open_plain(file, tensor.name), "rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _external_place(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """File, offset and length in bytes of one external tensor, checked."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = folder / location
    plain = PurePosixPath(location)
    if not location or "\\" in location or "\0" in location or plain.is_absolute() or ".." in plain.parts:
        raise _unsafe(f"external data at {location!r} leaves the model's folder", tensor.name)
    os.close(_open_plain(file, tensor.name))
    parents = [folder.joinpath(*plain.parts[:depth]) for depth in range(1, len(plain.parts))]
    if any(parent.is_symlink() for parent in parents):
        raise _unsafe(f"external data at {location!r} lies behind a symbolic link", tensor.name)
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError:
        raise _unsafe(
            f"offset or length of external data at {location!r} is no number", tensor.name
        ) from None
    if offset < 0 or length < 0 or offset + length > size:
        raise GraphError(
            f"external data at {location!r} has {size} bytes, the weight needs {offset}..{offset + length}",
            where=tensor.name,
            mend="copy the whole data file beside the model",
        )
    return file, offset, length


def _open_plain(file: Path, tensor: str) -> int:
    """A descriptor of a regular file that has one name only; what was judged is what is read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _unsafe(f"external data at {file.name!r} cannot be opened: {error.strerror}", tensor) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _unsafe(f"external data at {file.name!r} is not a plain file with one name", tensor)
    return descriptor


def _unsafe(what: str, tensor: str) -> GraphError:
    return GraphError(
        what, where=tensor, mend="keep weights in plain files beside the model, or in the model"
    )


def _refuse_strange_nodes(model: ModelProto, path: Path) -> None:
    version = edit.opset(model)
    for node in model.graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        if node.domain or not onnx.defs.has(node.op_type):
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise GraphError(
                f"{name} is an operator that standard ONNX does not have",
                where=f"{path}, node {edit.label(node)}",
                mend="replace the layer in PyTorch by standard ones and export again",
            )
        if not node.output:
            raise GraphError("a node gives nothing", where=f"{path}, node {edit.label(node)}")
        if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
            raise GraphError(
                f"{node.op_type} is control flow, which classic CNNs do not have",
                where=f"{path}, node {edit.label(node)}",
                mend="export the model in evaluation mode with fixed control flow",
            )
    if version < 1 or version > onnx.defs.onnx_opset_version():
        raise GraphError(f"operator set {version} is not known to onnx {onnx.__version__}", where=path)


def _refuse_bad_constants(model: ModelProto, path: Path) -> None:
    """Weights whose bytes do not fit their shape, or that are not numbers."""
    if model.graph.sparse_initializer:
        raise GraphError("sparse weights are not supported", where=path, mend="store them dense")
    for tensor in model.graph.initializer:
        try:
            values = edit.array(tensor)
        except (ValueError, TypeError) as error:
            what = f"a weight does not fit its shape {list(tensor.dims)}: {edit.first_line(error)}"
            raise GraphError(what, where=f"{path}, weight {tensor.name}") from None
        extremes = np.array([values.min(), values.max()]) if values.size else np.zeros(2)
        if tensor.data_type in edit.FLOATS and not np.isfinite(extremes.astype(np.float64)).all():
            raise GraphError("a weight holds NaN or infinity", where=f"{path}, weight {tensor.name}")


def _refuse_other_than_classifier(model: ModelProto, path: Path) -> None:
    try:
        input_shape(model)
        logits_name(model)
    except GraphError as error:
        where = path if error.where is None else f"{path}, {error.where}"
        raise GraphError(error.what, where=where, mend=error.mend) from None
