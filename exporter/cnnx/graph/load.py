"""Loading of untrusted ONNX files, and saving.

An ONNX file from elsewhere may name any file on the disk as its weights, use unknown operators, or not be
ONNX at all. `load_model` accepts only self-contained classifiers with standard operators.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from cnnx.errors import GraphError
from cnnx.graph import edit
from cnnx.limits import INLINED_NODES
from cnnx.store.reading import read_bytes

OPSET = 19  # the first with FP16 scales in Q/DQ; supported by JetPack 6's parser and old ONNX Runtimes
IR_VERSION = 10  # the newest that ONNX Runtime for Python 3.10 supports
_DAMAGED = edit.DAMAGED
_UNFIT = "export a classifier with one float32 input (N, C, H, W) and one output of logits (N, classes)"
QDQ_FORMAT = "export it with standard Q/DQ: quant_format=QuantFormat.QDQ in ONNX Runtime"
_ONNX_ERRORS = (
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
    onnx.version_converter.ConvertError,
)
_UNFIT_FOR_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Operators of ONNX Runtime that compute with integers.
_INTEGER_OPS = re.compile(r"^Q[A-Z]|Quant|Integer|NBits")
_LIMIT = 2**31 - 1  # maximum size of a protobuf message


def load_model(path: Path) -> ModelProto:
    """Load a graph that cnnx wrote: a classifier with logits as its first output.

    The file may come from elsewhere in a bundle, so that it is checked like any other.

    Raises:
        GraphError: see `parse_model`; or it is not a classifier.
    """
    model = parse_model(path)
    with located_in(path):
        name_nodes(model)
        edit.check(model)
    refuse_bad_constants(model, path)
    with located_in(path):
        input_shape(model, raw=True)
        logits_name(model)
    return model


def parse_model(path: Path) -> ModelProto:
    """Read an ONNX file with its external weights; local functions are inlined.

    Raises:
        GraphError: the file is missing, not ONNX or damaged, has unsafe external data, an unknown operator or
            control flow.
    """
    model = _parse(path)
    _refuse_bytes(model, path)
    _refuse_unknown_types(model, path)
    _read_external_data(model, path)
    if model.functions:
        model = _inlined(model, path)
    _refuse_strange_nodes(model, path)
    return model


def _inlined(model: ModelProto, path: Path) -> ModelProto:
    hint = f"export a model whose functions expand to at most {INLINED_NODES:,} nodes"
    try:
        nodes = _nodes_when_inlined(model)
    except RecursionError:
        what = "the local functions of the graph are nested too deeply"
        raise GraphError(what, where=path, hint=hint) from None
    if nodes > INLINED_NODES:
        what = f"the graph has {nodes:.0e} nodes once its local functions are inlined"
        raise GraphError(what, where=path, hint=hint)
    try:
        return onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, *_ONNX_ERRORS) as error:
        what = f"the local functions of the graph cannot be inlined: {edit.first_line(error)}"
        hint = "export the model again without functions that call themselves"
        raise GraphError(what, where=path, hint=hint) from None


def _nodes_when_inlined(model: ModelProto) -> float:
    """Number of nodes after inlining; functions that call themselves count once, and are refused later."""
    bodies = {(each.domain, each.name): each.node for each in model.functions}
    sizes: dict[tuple[str, str], float] = {}

    def size(nodes: Iterable[NodeProto]) -> float:
        total = 0.0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = 1.0  # while its body is counted
                sizes[key] = size(bodies[key])
            total += sizes.get(key, 1.0)
            total += sum(size(inner.node) for each in node.attribute for inner in (each.g, *each.graphs))
        return total

    return size(model.graph.node)


@contextlib.contextmanager
def located_in(path: Path) -> Iterator[None]:
    """Add the file to the location of a `GraphError`."""
    try:
        yield
    except GraphError as error:
        where = path if error.where is None else f"{path}, {error.where}"
        raise GraphError(error.what, where=where, hint=error.hint) from None


def save_model(model: ModelProto, path: Path) -> None:
    """Save a model to one file.

    Raises:
        GraphError: the model exceeds 2 GiB, the limit of protobuf.
    """
    size = model.ByteSize()
    if size > _LIMIT:
        what = f"the graph has {size / 2**30:.1f} GiB, but an ONNX file can hold only 2 GiB"
        raise GraphError(what, where=path, hint="export in FP16 or INT8, or choose a smaller network")
    path.write_bytes(model.SerializeToString(deterministic=True))


def normalise_version(model: ModelProto, opset: int = OPSET, ir: int = IR_VERSION) -> None:
    """Convert a model to one opset and IR version. Edits in place.

    The converter gets the graph without its large weights, as it changes operators and not values.

    Raises:
        GraphError: onnx cannot convert an operator.
    """
    found = edit.opset(model)
    if found != opset:
        try:
            converted = onnx.version_converter.convert_version(edit.skeleton(model), opset)
        except (RuntimeError, ValueError, *_ONNX_ERRORS) as error:
            what = f"opset {found} cannot be converted to {opset}: {edit.first_line(error)}"
            where, hint = f"graph {model.graph.name}", f"export the model again with opset {opset}"
            raise GraphError(what, where=where, hint=hint) from None
        known = {tensor.name for tensor in model.graph.initializer}
        added = [tensor for tensor in converted.graph.initializer if tensor.name not in known]
        edit.replace_nodes(model.graph, converted.graph.node)
        model.graph.initializer.extend(added)
        del model.graph.value_info[:]
    del model.opset_import[:]
    model.opset_import.add(domain="", version=opset)
    model.ir_version = ir


def name_nodes(model: ModelProto) -> None:
    """Give every node a unique name, which plans and reports rely on. Edits in place.

    A node without a name is named after its weight ("features.0.weight" -> "features.0"), or else after its
    operator and output. Unique names are kept, except for characters that a terminal would obey, which become
    underscores.
    """
    constants = edit.initializers(model.graph)
    taken: set[str] = set()
    for node in model.graph.node:
        stem = node.name or weight_scope(node, constants) or f"{node.op_type}_{node.output[0]}"
        stem = _UNFIT_FOR_NAMES.sub("_", stem)
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        node.name = name


def weight_scope(node: NodeProto, constants: dict[str, TensorProto]) -> str | None:
    """The layer of a node's weight: "features.0" for "features.0.weight"; None without one."""
    weight = str(node.input[1]) if len(node.input) > 1 else ""
    return weight.removesuffix(".weight") if weight in constants and weight.endswith(".weight") else None


def logits_name(model: ModelProto) -> str:
    """Name of the first output of shape (N, classes).

    Raises:
        GraphError: the graph has no such output.
    """
    types = edit.value_types(model)
    for value in model.graph.output:
        if types[value.name].rank == 2 and types[value.name].is_float:
            return str(value.name)
    shapes = ", ".join(f"{value.name} {types[value.name].shape}" for value in model.graph.output)
    raise GraphError(
        f"no float output has the shape (N, classes); outputs: {shapes or 'none'}",
        where=f"graph {model.graph.name}",
        hint=_UNFIT,
    )


def input_shape(model: ModelProto, *, raw: bool = False) -> tuple[int | str | None, int, int, int]:
    """Shape (N, C, H, W) of the model's input; N is a name or None for a dynamic batch.

    Args:
        model: the graph of a classifier.
        raw: accept pixels, too: uint8, (N, C, H, W) or (N, H, W, C).

    Raises:
        GraphError: the graph does not have exactly one float32 input of rank 4 with fixed C, H and W.
    """
    inputs = edit.data_inputs(model.graph)
    if len(inputs) != 1:
        listed = ", ".join(value.name for value in inputs) or "none"
        what = f"a classifier has one input, but this graph has {len(inputs)}: {listed}"
        raise GraphError(what, where=f"graph {model.graph.name}", hint=_UNFIT)
    kind = edit.value_type(inputs[0])
    accepted = (edit.FLOAT, TensorProto.UINT8) if raw else (edit.FLOAT,)
    if kind.elem_type not in accepted or kind.shape is None or len(kind.shape) != 4:
        word = edit.type_name(kind.elem_type)
        what = f"the input should be float32 of shape (N, C, H, W), not {word} {kind.shape}"
        hint = "export with an input of type float32 and a shape such as (1, 3, 224, 224)"
        raise GraphError(what, where=f"input {inputs[0].name}", hint=hint)
    batch, *size = kind.shape
    known = [length for length in size if isinstance(length, int) and length > 0]
    if len(known) < len(size):
        raise GraphError(
            f"channels, height and width of the input must be fixed and positive, not {kind.shape}",
            where=f"input {inputs[0].name}",
            hint="export the model again with a fixed image size; only the batch may be dynamic",
        )
    channels, height, width = known
    return batch, channels, height, width


def fix_batch(model: ModelProto, batch: int) -> None:
    """Fix the batch size of the input and the outputs. Edits the model in place."""
    edit.data_inputs(model.graph)[0].type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    for output in model.graph.output:
        axes = output.type.tensor_type.shape.dim
        if axes:
            axes[0].dim_value = batch


def _parse(path: Path) -> ModelProto:
    if not path.is_file():
        hint = "check the path; it must be an ONNX file of a classifier"
        raise GraphError("the ONNX file does not exist", where=path, hint=hint)
    size = path.stat().st_size
    if not 0 < size <= _LIMIT:
        what = f"the ONNX file has {size:,} bytes; files of 1 byte to 2 GiB are supported"
        hint = "export a smaller model, or the same model in FP16" if size else _DAMAGED
        raise GraphError(what, where=path, hint=hint)
    model = ModelProto()
    try:
        model.ParseFromString(read_bytes(path, most=_LIMIT))
    except DecodeError:
        raise GraphError("this is not an ONNX file, or it is truncated", where=path, hint=_DAMAGED) from None
    if not model.graph.node or not model.opset_import:
        what = "the file contains no ONNX graph, or it is truncated"
        raise GraphError(what, where=path, hint=_DAMAGED)
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                yield entry.t


def _refuse_bytes(model: ModelProto, path: Path) -> None:
    """Refuse a text that is not UTF-8, which protobuf gives as bytes."""
    for text in _texts(model):
        if isinstance(text, bytes):
            raise GraphError(f"the text {text!r:.80} is not UTF-8", where=path, hint=_DAMAGED)


def _texts(message: Message) -> Iterator[str | bytes]:
    """The texts of a message and of all messages in it."""
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from [value] if isinstance(value, (str, bytes)) else value
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from _texts(inner)


def _refuse_unknown_types(model: ModelProto, path: Path) -> None:
    """Refuse constants of an element type that ONNX does not have: onnx raises nearly anything on them."""
    for tensor in _tensors(model):
        if tensor.data_type not in TensorProto.DataType.values():
            what = f"the weight has {edit.type_name(tensor.data_type)}"
            raise GraphError(what, where=f"{path}, weight {tensor.name}", hint=_DAMAGED)


def _read_external_data(model: ModelProto, path: Path) -> None:
    """Load weights from files next to the model into it. Edits in place.

    All locations are checked before the first byte is read. Otherwise a graph could name /etc/shadow, or a
    link to it, as a weight, and its content would end up in the exported files.
    """
    external = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    with located_in(path):
        spans = [_external_span(tensor, path.resolve().parent) for tensor in external]
    if (total := sum(length for _, _, length in spans)) > _LIMIT:
        what = f"the external weights have {total / 2**30:.1f} GiB; at most 2 GiB are supported"
        raise GraphError(what, where=path, hint="export in FP16, or choose a smaller network")
    for tensor, (file, offset, length) in zip(external, spans, strict=True):
        with located_in(path), os.fdopen(_open_plain(file, tensor.name), "rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT


def _external_span(tensor: TensorProto, folder: Path) -> tuple[Path, int, int]:
    """Checked file, offset and length in bytes of an external tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = folder / location
    plain = PurePosixPath(location)
    if not location or "\\" in location or "\0" in location or plain.is_absolute() or ".." in plain.parts:
        raise _unsafe(f"external data at {location!r} is outside the folder of the model", tensor.name)
    os.close(_open_plain(file, tensor.name))
    parents = [folder.joinpath(*plain.parts[:depth]) for depth in range(1, len(plain.parts))]
    if any(parent.is_symlink() for parent in parents):
        raise _unsafe(f"external data at {location!r} is behind a symbolic link", tensor.name)
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError:
        raise _unsafe(
            f"offset or length of external data at {location!r} is not an integer", tensor.name
        ) from None
    if offset < 0 or length < 0 or offset + length > size:
        raise GraphError(
            f"external data at {location!r} has {size} bytes, the weight needs {offset}..{offset + length}",
            where=f"weight {tensor.name}",
            hint="copy the complete data file next to the model",
        )
    return file, offset, length


def _open_plain(file: Path, tensor: str) -> int:
    """Open a regular file with a single hard link, so that the checked file is the one that is read."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _unsafe(f"external data at {file.name!r} cannot be opened: {error.strerror}", tensor) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise _unsafe(f"external data at {file.name!r} is not a regular file with a single hard link", tensor)
    return descriptor


def _unsafe(what: str, tensor: str) -> GraphError:
    hint = "store the weights in the model, or in regular files in its folder"
    return GraphError(what, where=f"weight {tensor}", hint=hint)


def _refuse_strange_nodes(model: ModelProto, path: Path) -> None:
    version = edit.opset(model)
    for node in model.graph.node:
        if node.domain == "ai.onnx":
            node.domain = ""
        if node.domain or not onnx.defs.has(node.op_type):
            name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            raise GraphError(
                f"{name} is not a standard ONNX operator",
                where=f"{path}, node {edit.label(node)}",
                hint=QDQ_FORMAT
                if _INTEGER_OPS.search(node.op_type)
                else "replace the layer with standard PyTorch layers and export the model again",
            )
        if not node.output:
            where, hint = f"{path}, node {edit.label(node)}", "remove the node, or export the model again"
            raise GraphError("the node has no output", where=where, hint=hint)
        if any(entry.ref_attr_name for entry in node.attribute):
            what = f"an attribute of {node.op_type} refers to that of a function, and the node is in none"
            raise GraphError(what, where=f"{path}, node {edit.label(node)}", hint=_DAMAGED)
        if any(entry.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for entry in node.attribute):
            raise GraphError(
                f"{node.op_type} is control flow, which is not supported",
                where=f"{path}, node {edit.label(node)}",
                hint="export the model in evaluation mode, without branches or loops that depend on values",
            )
    if version < 1 or version > onnx.defs.onnx_opset_version():
        what = f"opset {version} is not supported by onnx {onnx.__version__}"
        raise GraphError(what, where=path, hint=f"export the model again with opset {OPSET}")


def refuse_bad_constants(model: ModelProto, path: Path) -> None:
    """Refuse weights whose size does not match their shape, or that are not finite."""
    if model.graph.sparse_initializer:
        where = f"{path}, weight {model.graph.sparse_initializer[0].values.name}"
        hint = "convert the weights to dense tensors and export the model again"
        raise GraphError("sparse weights are not supported", where=where, hint=hint)
    for tensor in model.graph.initializer:
        with located_in(path):
            values = edit.array(tensor)
        if tensor.data_type in edit.FLOATS and values.size:
            extremes = np.array([values.min(), values.max()])
            if not np.isfinite(extremes.astype(np.float64)).all():
                where, hint = f"{path}, weight {tensor.name}", "export from a checkpoint with finite weights"
                raise GraphError("the weight contains NaN or infinity", where=where, hint=hint)
