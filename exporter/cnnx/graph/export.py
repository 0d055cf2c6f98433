"""Export of PyTorch models to FP32 ONNX graphs whose nodes are named after the PyTorch layers."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from onnx import ModelProto, NodeProto
from torch import nn

from cnnx.errors import GraphError, MissingExtra
from cnnx.graph import edit
from cnnx.graph.load import IR_VERSION, OPSET, normalise_version, weight_scope

OUTPUT = "logits"


def export_model(
    model: nn.Module,
    *,
    shape: tuple[int, int, int],
    batch: tuple[int, int] = (1, 1),
    input_name: str = "input",
) -> ModelProto:
    """Export a classifier with PyTorch's dynamo exporter.

    Nodes and their outputs are named after their layer ("features.0"), or after their block and operator
    ("layer1.0.add"). The exporter's metadata contains paths of this machine and is removed, so the same
    model always gives the same bytes.

    Args:
        model: maps float32 (N, C, H, W) to (N, classes); it is exported in evaluation mode.
        shape: channels, height, width.
        batch: smallest and largest batch; if they differ, the graph has the dynamic dimension "batch".
        input_name: name of the graph's input; the output is named "logits".

    Raises:
        GraphError: PyTorch cannot trace or convert the model, or the graph is invalid.
        MissingExtra: onnxscript is not installed.
    """
    program = _export(model.eval(), shape=shape, batch=batch, input_name=input_name)
    exported: ModelProto = program.model_proto
    _name_after_modules(exported)
    _strip(exported)
    normalise_version(exported, OPSET, IR_VERSION)
    edit.check(exported)
    return exported


def _export(model: nn.Module, *, shape: tuple[int, int, int], batch: tuple[int, int], input_name: str) -> Any:
    smallest, largest = batch
    dynamic = None
    if smallest != largest:
        dynamic = ({0: torch.export.Dim("batch", min=smallest, max=largest)},)
    # The exporter treats a length of 1 as constant, so trace a dynamic batch with another length.
    example = torch.zeros((smallest if dynamic is None else max(2, smallest), *shape))
    try:
        with _quiet(), _local_response_norms_as_onnx(model), torch.no_grad():
            return torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[input_name],
                output_names=[OUTPUT],
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "export", purpose="exporting to ONNX") from None
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError, ValueError) as error:
        raise GraphError(
            f"PyTorch could not export this model: {_reason(error)}",
            where=type(model).__name__,
            hint="the model must map one float tensor (N, C, H, W) to one tensor of logits, "
            "without branches that depend on values",
        ) from error


def _reason(error: BaseException) -> str:
    """The root cause of an exporter error, without the advice that wraps it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {edit.first_line(error) if isinstance(error, Exception) else error}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress output, warnings and log messages, but not its errors."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _local_response_norms_as_onnx(model: nn.Module) -> Iterator[None]:
    """Export LocalResponseNorm as the ONNX operator LRN, which has the same parameters.

    PyTorch would export nine primitive operators, which no runtime fuses again.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.LocalResponseNorm)]
    for norm in norms:
        norm.forward = _lrn(norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _lrn(norm: nn.LocalResponseNorm) -> Any:
    # An int such as k=2 would become an integer attribute, which LRN does not accept.
    floats = {"alpha": float(norm.alpha), "beta": float(norm.beta), "bias": float(norm.k)}
    arguments: dict[str, Any] = {"size": norm.size, **floats}

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.onnx.ops.symbolic("LRN", (x,), arguments, dtype=x.dtype, shape=x.shape, version=13)

    return forward


def _name_after_modules(model: ModelProto) -> None:
    """Name nodes and their outputs after their modules. Edits in place."""
    graph = model.graph
    constants = edit.initializers(graph)
    outputs = {value.name for value in graph.output}
    names = edit.Names(edit.shell(model).graph)  # inputs only, as all nodes are renamed
    for name in constants:
        names.fresh(name)
    renamed: dict[str, str] = {}
    for node in graph.node:
        node.name = names.fresh(weight_scope(node, constants) or _module_name(node))
        for index, tensor in enumerate(node.input):
            node.input[index] = renamed.get(tensor, tensor)
        for index, tensor in enumerate(node.output):
            if tensor and tensor not in outputs:
                renamed[tensor] = node.name if index == 0 else f"{node.name}.{index}"
                node.output[index] = renamed[tensor]


def _module_name(node: NodeProto) -> str:
    """The layer of a node ("features.1"), or its block and operator ("layer1.0.add")."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes, classes = (
        ast.literal_eval(notes.get(f"pkg.torch.onnx.{key}", "[]"))[:-1]  # the last is the operator itself
        for key in ("name_scopes", "class_hierarchy")
    )
    module, kind = (str(entries[-1]) if entries else "" for entries in (scopes, classes))
    is_layer = kind.startswith("torch.nn.modules.") and not kind.startswith("torch.nn.modules.container.")
    return module if module and is_layer else f"{module}.{node.op_type.lower()}".lstrip(".")


def _strip(model: ModelProto) -> None:
    """Remove the exporter's metadata: stack traces with paths, and inferred shapes. Edits in place."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
        holder.ClearField("doc_string")
    del graph.value_info[:]
