"""Tools that simplify an ONNX graph or convert its operator set, and the process that runs one.

`python -m tools.bench.simplify` starts it: simplifiers NAME takes a line with two files, a source and a
target, from standard input, again and again, and says how long each took and how much memory grew.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx

from tools.memory import memory


def ours(model: onnx.ModelProto) -> onnx.ModelProto:
    from cnnx.graph.load import name_nodes
    from cnnx.graph.simplify import simplify

    name_nodes(model)
    simplify(model)
    return model


def script(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxscript import optimizer

    limits = {"input_size_limit": 1 << 22, "output_size_limit": 1 << 22}
    return optimizer.optimize(model, **limits)  # type: ignore[no-any-return]


def ir(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx_ir
    from onnx_ir.passes import common

    passes = onnx_ir.passes.Sequential(
        common.InlinePass(),
        common.RemoveInitializersFromInputsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.NameFixPass(),
    )
    return onnx_ir.to_proto(passes(onnx_ir.from_proto(model)).model)


def shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold shape arithmetic with any batch, using onnx_shape_inference."""
    import onnx_ir
    import onnx_shape_inference
    from onnx_ir.passes import common

    del model.graph.value_info[:]  # a converter's "unk__0" would be read as a name
    found = onnx_ir.from_proto(model)
    onnx_shape_inference.infer_symbolic_shapes(found, warn_on_missing=False)
    for node in [*found.graph]:
        for value in node.outputs:
            known = json.loads(value.metadata_props.pop(onnx_shape_inference.SYM_DATA_KEY, "null"))
            if known and value.shape is not None and all(isinstance(n, int) for n in known):
                array = np.array(known, value.dtype.numpy()).reshape(value.shape.numpy())
                value.replace_all_uses_with(_known(found, f"{value.name}.known", array))
        if node.op_type == "Reshape" and node.inputs[1].const_value is None and node.outputs[0].shape:
            # Computed lengths arrive as SymbolicDim("32"), which onnxscript's rule does not handle.
            lengths = [int(str(n)) if str(n).isdecimal() else -1 for n in node.outputs[0].shape]
            if lengths.count(-1) < 2 and 0 not in lengths:
                name = f"{node.outputs[0].name}.shape"
                node.replace_input_with(1, _known(found, name, np.array(lengths, np.int64)))
    return onnx_ir.to_proto(common.RemoveUnusedNodesPass()(found).model)


def _known(model: Any, name: str, array: Any) -> Any:
    import onnx_ir

    value = onnx_ir.val(name, const_value=onnx_ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value


def slim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)  # type: ignore[return-value]


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.version_converter.convert_version(model, 20)


def convert_script(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the IR: with a ModelProto, onnxscript 0.7.2 keeps the old opset_import."""
    import onnx_ir
    from onnxscript import version_converter

    found = onnx_ir.from_proto(model)
    version_converter.convert_version(found, 20, fallback=True)
    if found.opset_imports[""] != 20:
        raise RuntimeError(f"left at operator set {found.opset_imports['']}")
    return onnx_ir.to_proto(found)


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to operator set 20, then alternate shape inference and cnnx's passes until nothing changes."""
    found, nodes = ours(convert(model)), 0
    while len(found.graph.node) != nodes:
        nodes = len(found.graph.node)
        found = ours(shapes(found))
    return found


def entered(model: onnx.ModelProto) -> onnx.ModelProto:
    """The canonical form that cnnx gives a file on entry, then its passes."""
    from cnnx.graph.entry import read_network

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        file.write_bytes(model.SerializeToString())
        return ours(read_network(file).model)


Tool = Callable[[onnx.ModelProto], onnx.ModelProto]
TOOLS: dict[str, Tool] = {
    "none": lambda model: model,
    "ours": ours,
    "onnxscript": script,
    "onnx_ir": ir,
    "onnxslim": slim,
    "20+ours": lambda model: ours(convert(model)),
    "20+shapes+ours": canonical,
    "entry+ours": entered,
    "20+onnxslim+ours": lambda model: ours(slim(convert(model))),
}
CONVERTERS = {"onnx to 20": convert, "onnxscript to 20": convert_script}


def work(tool: str) -> None:
    """Loop of the child process; a first call on a small graph triggers lazy imports."""
    logging.disable()
    function = {**TOOLS, **CONVERTERS}[tool]
    node, values = onnx.helper.make_node("Relu", ["x"], ["y"]), [("x", [1, 3]), ("y", [1, 3])]
    made = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in values]
    graph = onnx.helper.make_graph([node], "g", made[:1], made[1:])
    with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
        function(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    for line in sys.stdin:
        source, target = line.split()
        print("RESULT", json.dumps(_once(function, Path(source), Path(target))), flush=True)


def _once(function: Tool, source: Path, target: Path) -> dict[str, Any]:
    model = onnx.load(source)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before, start = memory("VmHWM"), time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = function(model)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:110]}
    seconds, after = time.perf_counter() - start, memory("VmHWM")
    target.write_bytes(model.SerializeToString(deterministic=True))
    return {"seconds": seconds, "mib": (after - before) / 2**20}


if __name__ == "__main__":
    work(sys.argv[1])
