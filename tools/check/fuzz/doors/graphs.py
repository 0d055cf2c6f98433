"""ONNX files: float, quantized, with functions, and with weights in a file of their own."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.mutators import octets, protobuf

_TOLERANCE = 1e-3
_IMAGES = 2
_OPERATORS = (
    "Relu", "Sigmoid", "Softmax", "Identity", "Dropout", "BatchNormalization", "Conv", "ConvTranspose",
    "Gemm", "MatMul", "Flatten", "Reshape", "Transpose", "Shape", "Gather", "Concat", "Slice", "Resize",
    "Pad", "Cast", "If", "Loop", "Scan", "NonZero", "RandomNormal", "ConstantOfShape", "Expand", "Tile",
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "SequenceConstruct", "Einsum", "LSTM", "TopK",
    "Unknown", "Act", "GlobalAveragePool", "ReduceMean", "Clip", "Erf",
)  # fmt: skip


class GraphDoor(Door):
    """An ONNX file of a user."""

    name, reads = "ONNX", "an ONNX file"

    def prepare(self) -> None:
        import onnxruntime
        import torch

        import cnnx.graph.entry
        import cnnx.pipeline.networks  # noqa: F401

        torch.set_num_threads(1)
        onnxruntime.set_default_logger_severity(4)

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {name: {"m.onnx": model.SerializeToString()} for name, model in _models().items()}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        import onnx

        content = files["m.onnx"]
        assert isinstance(content, bytes)
        if dice.random() < 0.15:
            changed, how = octets.damage(dice, content)
            return {**files, "m.onnx": changed}, how
        model = onnx.ModelProto.FromString(content)
        words = {
            "op_type": _OPERATORS,
            "domain": ("", "ai.onnx", "com.microsoft", "local"),
            "location": ("w.bin", "/etc/passwd"),
        }
        how = protobuf.change(dice, model, words=words)
        for _ in range(dice.choice((0, 0, 0, 1, 4))):
            protobuf.change(dice, model, words=words)
            how = "several changes"
        return {**files, "m.onnx": model.SerializeToString()}, how

    def read(self, folder: Path) -> Any:
        """What the canonical graph computes for a few images; Q/DQ is taken out, and then left in."""
        from cnnx.graph.entry import read_network

        taken = read_network(folder / "m.onnx")
        left = read_network(folder / "m.onnx", keep_qdq=True)
        found = _outputs(left.model.SerializeToString())
        scales = repr(taken.scales)
        return taken.classes, scales, None if found is None else found[0].tobytes()

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """The same as ONNX Runtime computes from the file itself."""
        from cnnx.graph.entry import read_network

        network = read_network(folder / "m.onnx", keep_qdq=True)
        ours = _outputs(network.model.SerializeToString())
        theirs = _outputs(str(folder / "m.onnx"), nhwc=network.nhwc)
        if ours is None:
            return "ONNX Runtime refuses the graph" if theirs is None else ""
        if theirs is None:
            return "ONNX Runtime refuses the file, and runs the graph"
        alike = any(_alike(ours[0], each) for each in theirs)
        return "another network, as ONNX Runtime runs it" if alike else ""

    def command(self, folder: Path) -> list[str]:
        return ["show", str(folder / "m.onnx")]


class ExternalDoor(GraphDoor):
    """An ONNX file whose weights lie beside it."""

    name, reads = "external data", "an ONNX file with its weights in another file"

    def seeds(self, scratch: Path) -> dict[str, Files]:
        import onnx

        folder = scratch / "external"
        folder.mkdir()
        model = _models()["plain"]
        onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        return {"plain": {name: (folder / name).read_bytes() for name in ("m.onnx", "w.bin")}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        import onnx

        kind, data = dice.random(), files["w.bin"]
        assert isinstance(data, bytes)
        if kind < 0.2:
            changed, how = octets.damage(dice, data)
            return {**files, "w.bin": changed}, f"data: {how}"
        if kind < 0.3:
            targets = (Path("/etc/passwd"), Path("/dev/zero"), Path("m.onnx"), Path("w.bin"), Path("absent"))
            return {**files, "w.bin": dice.choice((None, *targets))}, "data: no file of its own"
        if kind < 0.4:
            return super().mutate(dice, files)
        model = onnx.ModelProto.FromString(files["m.onnx"])
        entry = dice.choice([e for tensor in model.graph.initializer for e in tensor.external_data])
        values = (
            "../w.bin",
            "/etc/passwd",
            "w.bin/..",
            "",
            ".",
            "a" * 5000,
            "m.onnx",
            "-1",
            "4",
            "1e3",
            "9" * 30,
            "0x4",
            " ",
        )
        entry.value = dice.choice((*values, str(dice.choice(octets.LENGTHS))))
        if dice.random() < 0.1:
            entry.key = dice.choice(("location", "offset", "length", "checksum", "basepath", ""))
        return {**files, "m.onnx": model.SerializeToString()}, f"external {entry.key}"


def _models() -> dict[str, Any]:
    """Small classifiers as exporters write them."""
    from onnx import helper

    from tests.inputs.graphs import branching, images, maxima_of, plain, residual
    from tests.inputs.quantized import with_qdq

    nested = plain()
    domains = [helper.make_opsetid("", 19), helper.make_opsetid("local", 1)]
    body = [helper.make_node("Relu", ["x"], ["y"])]
    nested.functions.append(helper.make_function("local", "Act", ["x"], ["y"], body, domains))
    nested.opset_import.add(domain="local", version=1)
    for node in nested.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", "local"
    fixed = residual(batch=1)
    return {
        "plain": plain(),
        "fixed": fixed,
        "branching": branching(),
        "functions": nested,
        "quantized": with_qdq(residual(), maxima_of(residual(), images())),
    }


def _alike(ours: Any, theirs: Any) -> bool:
    """Whether logits are the output of a file, which may normalize them, or have axes of 1."""
    import numpy as np

    if ours.size != theirs.size:
        return False
    wide, theirs = ours.astype(np.float64), theirs.astype(np.float64).reshape(ours.shape)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    softmax = powers / powers.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return any(
            np.allclose(
                each, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * max(1, np.abs(each).max()), equal_nan=True
            )
            for each in (wide, softmax, np.log(softmax))
        )


def _outputs(model: bytes | str, *, nhwc: bool = False) -> list[Any] | None:
    """What a graph computes for a few images; None if ONNX Runtime refuses it.

    Args:
        nhwc: it takes (N, H, W, C).
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        [wanted] = session.get_inputs()
        sizes = [size if isinstance(size, int) and size > 0 else _IMAGES for size in wanted.shape]
        if nhwc:
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        values = np.random.default_rng(0).integers(0, 256, sizes)
        values = values.transpose(0, 2, 3, 1) if nhwc else values
        kind = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
        found: list[Any] = session.run(None, {wanted.name: values.astype(kind.get(wanted.type, np.float32))})
    except Exception:
        return None
    return found


DOORS = (GraphDoor(), ExternalDoor())
