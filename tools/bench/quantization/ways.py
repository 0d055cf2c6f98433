"""Quantize one FP32 graph with one method in this process, and report the cost.

python -m tools.bench.quantization.ways WAY WORK.json

The benchmark starts it, for ModelOpt with the Python of a venv without cnnx: each method imports only its
own packages. WORK.json names the graph, the images, and the paths of the INT8 graph and the report.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.memory import memory

if TYPE_CHECKING:
    from cnnx.options import Precision
    from cnnx.pipeline.quantizer import Quantizer

Work = dict[str, Any]
"""
graph: the FP32 graph, of batch 1. inputs: float32 (N, C, H, W) in a .npy. out: path of the INT8 graph.
scratch: an empty folder. report: path of the cost report. For cnnx's methods also network, images (folder of
calibration images), selection (folder of selection images) and key (of the graph).
"""

_PACKAGES = ("cnnx", "nvidia-modelopt", "onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "torch")
_BINS = 2048
_PERCENTILE = 99.999

# onnxruntime's advice for TensorRT in qdq_quantizer.py and its example (BERT, e2e_tensorrt): a Q/DQ pair for
# each reader, pairs on weights, none on outputs of weighted operators, biases not quantized. Only matrix
# products with a constant weight, as in TensorRT's guide: to a peer's advantage.
_ORT_OPERATORS = ["Conv", "Gemm", "MatMul", "Add"]
_ORT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
    "QuantizeBias": False,
    "MatMulConstBOnly": True,
    "OpTypesToExcludeOutputQuantization": _ORT_OPERATORS,
    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
}


def plain(_: str, work: Work) -> Callable[[], None]:
    """The baseline: the same images through the FP32 graph."""
    from cnnx.runtimes import get

    inputs = _inputs(work)
    _load("onnxruntime")

    def run() -> None:
        session = get("ort").open(Path(work["graph"]))
        for batch in inputs:
            session.run(batch)

    return run


def ours(method: str, work: Work) -> Callable[[], None]:
    """The work of `cnnx export --int8` from the FP32 graph to the INT8 graph, with an empty cache.

    An export also tries the graph on held-out images; here these are the selection images.
    """
    from cnnx.data.crops import Crops
    from cnnx.pipeline.search.changes import described
    from cnnx.pipeline.search.method import AUTO, choose_method
    from cnnx.pipeline.search.remedies import remedies_step

    _load("onnx", "onnxruntime", "cnnx.graph.lint", "cnnx.graph.passes.equalize")

    def run() -> None:
        quantizer, selection = _quantizer(work, "int8"), Crops.open(Path(work["selection"]))
        recipe = quantizer.recipe
        chosen = method or recipe.calibration.method
        if chosen == AUTO:
            chosen = choose_method(quantizer, selection)[0].method
        ranges = quantizer.ranges(chosen)
        typed = quantizer.typed(ranges)
        found = remedies_step(
            quantizer,
            ranges,
            selection,
            costs=typed.described["costs"],
            share=typed.described["int8_share"],
            validation_images=recipe.validation.images,
        )
        if found.remedies:
            typed = dataclasses.replace(quantizer, recipe=found.applied(recipe)).typed(ranges)
            work["remedies"] = described(found.remedies)
        Path(work["out"]).write_bytes(typed.model.read_bytes())
        work["method"] = chosen

    return run


def fp16(_: str, work: Work) -> Callable[[], None]:
    """The work of `cnnx export --fp16` from the FP32 graph to the typed graph, with an empty cache."""
    _load("onnx", "onnxruntime", "cnnx.graph.lint")

    def run() -> None:
        quantizer = _quantizer(work, "fp16")
        typed = quantizer.typed(quantizer.ranges("max"))
        Path(work["out"]).write_bytes(typed.model.read_bytes())

    return run


def _quantizer(work: Work, precision: Precision) -> Quantizer:
    """cnnx's quantizer, with the statistics of the calibration images."""
    from cnnx.data.crops import Crops
    from cnnx.pipeline.progress import Steps
    from cnnx.pipeline.quantizer import Quantizer
    from cnnx.pipeline.steps.artefacts import Fp32Graph
    from cnnx.pipeline.steps.definition import resolve
    from cnnx.store.cache import Entry, Store

    recipe = resolve(work["network"], trust_recipe=False)
    steps = Steps(store=Store(Path(work["scratch"])))
    exported = Fp32Graph(Entry("export", work["key"], Path(work["graph"]).parent, reused=True))
    images = Crops.open(Path(work["images"]))
    return Quantizer.observe(steps, exported, images, recipe, precision=precision)


def ort(method: str, work: Work) -> Callable[[], None]:
    """onnxruntime.quantization.

    Not by `quantize_static`, through which entropy keeps 128 bins and tests one range only; by the parts that
    it is made of, in its order.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator
    from onnxruntime.quantization.shape_inference import quant_pre_process

    kinds = {"max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
    folder, inputs = Path(work["scratch"]), _inputs(work)

    def run() -> None:
        prepared = str(folder / "prepared.onnx")
        quant_pre_process(work["graph"], prepared)
        calibrator = create_calibrator(
            prepared,
            _ORT_OPERATORS,
            augmented_model_path=str(folder / "augmented.onnx"),
            calibrate_method=CalibrationMethod[kinds[method]],
            extra_options={"symmetric": True, "num_bins": _BINS, "percentile": _PERCENTILE},
        )
        model = onnx.load(prepared)
        name = model.graph.input[0].name
        calibrator.collect_data(_Reader({name: batch} for batch in inputs))
        ranges = calibrator.compute_data()
        quantizer = QDQQuantizer(
            model,
            True,  # a scale for each output channel of the weights
            False,
            QuantType.QInt8,
            QuantType.QInt8,
            ranges,
            [],
            _adds_before_no_mean(model),
            _ORT_OPERATORS,
            dict(_ORT_OPTIONS),
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(work["out"], False)

    return run


def _adds_before_no_mean(model: Any) -> list[str]:
    """Sums that the TensorRT example does not quantize: those that no mean reads."""
    means = {
        name
        for node in model.graph.node
        if node.op_type in ("ReduceMean", "GlobalAveragePool")
        for name in node.input
    }
    return [node.name for node in model.graph.node if node.op_type == "Add" and node.output[0] not in means]


class _Reader:
    """Calibration data reader for onnxruntime."""

    def __init__(self, feeds: Iterator[dict[str, Any]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def modelopt(how: str, work: Work) -> Callable[[], None]:
    """NVIDIA's ModelOpt; layers outside INT8 become FP16 (its default) or stay FP32."""
    import numpy as np
    from modelopt.onnx.quantization import quantize

    method, _, rest = how.partition("-")

    def run() -> None:
        quantize(
            work["graph"],
            quantize_mode="int8",
            calibration_data=np.load(work["inputs"]),
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype=rest or "fp16",
            output_path=work["out"],
        )

    return run


FAMILIES: dict[str, Callable[[str, Work], Callable[[], None]]] = {
    "plain": plain,
    "fp16": fp16,
    "cnnx": ours,
    "ort": ort,
    "modelopt": modelopt,
}


def _load(*modules: str) -> None:
    """Import modules before the clock starts."""
    for module in modules:
        importlib.import_module(module)


def _inputs(work: Work) -> list[Any]:
    """One array (1, C, H, W) per image, memory-mapped."""
    import numpy as np

    inputs = np.load(work["inputs"], mmap_mode="r")
    return [inputs[i : i + 1] for i in range(len(inputs))]


def _versions() -> dict[str, str]:
    here = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    return {name: here[name] for name in _PACKAGES if name in here}


def main() -> None:
    """Quantize and write the report."""
    family, _, how = sys.argv[1].partition("-")
    work = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    run = FAMILIES[family](how, work)
    imported = memory("VmRSS")
    started, used = time.perf_counter(), time.process_time()
    run()
    report = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "peak_bytes": memory("VmHWM"),
        "imported_bytes": imported,
        "method": work.get("method"),
        "remedies": work.get("remedies"),
        "versions": _versions(),
    }
    Path(work["report"]).write_text(json.dumps(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
