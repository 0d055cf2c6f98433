"""ONNX Runtime, on CUDA where that is installed and a GPU is visible, else on the CPU; builds nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import CnnxError, EnvironmentLacks, GraphError, MissingExtra, UsageError
from cnnx.machine.environment import Gpu, cpu_device, detect_gpu, installed_version, usable_cores
from cnnx.runtimes import USUAL, BuildRequest, BuiltEngine, RunOptions
from cnnx.runtimes.batches import check_images, run_in_batches
from cnnx.runtimes.layer_times import LayerTime, kind_of_operator

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_KERNEL = "_kernel_time"
_WARMING_RUNS = 5
# Errors come as exceptions; logged as well, they would stand on the user's terminal.
_FATAL_ONLY = 4
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# TF32 has FP16's ten bits of mantissa: an FP32 graph would not be run as it is written.
_CUDA_OPTIONS = {"device_id": 0, "use_tf32": 0}


class OrtRuntime:
    """ONNX Runtime. Its CPU provider computes FP16 graphs in FP32: it cannot show overflow.

    CUDA is taken where onnxruntime-gpu is installed and a GPU is visible; an empty CUDA_VISIBLE_DEVICES, as
    for every program that uses CUDA, hides it.

    Args:
        bindings: gives the module onnxruntime; tests give an imitation.
        find_gpu: the GPU that a graph would run on.
    """

    name = "ort"
    engine_suffix: str | None = None
    builds_without_gpu = False

    def __init__(
        self,
        bindings: Callable[[], Any] | None = None,
        find_gpu: Callable[[], Gpu | None] = detect_gpu,
    ) -> None:
        self._bindings, self._find_gpu = bindings or _import, find_gpu

    def missing(self) -> CnnxError | None:
        """`MissingExtra` without onnxruntime."""
        if importlib.util.find_spec("onnxruntime") is None:
            return MissingExtra("onnxruntime", "cpu", purpose="running ONNX graphs on the CPU")
        return None

    def cannot_run(self) -> CnnxError | None:
        """A CPU is always there."""
        return self.missing()

    def load(self) -> None:
        """Load onnxruntime. CUDA's context is made with a session, and cannot be told apart from it."""
        self._bindings()

    def version(self) -> str | None:
        """Version of what is installed."""
        return installed_version("onnxruntime")

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Refuse any: there is nothing to build.

        Raises:
            UsageError: one is named.
        """
        if capabilities:
            raise UsageError("--sm names a GPU to build for, ort builds nothing", hint="--target rtx")

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:  # noqa: ARG002
        """Refuse: the graph itself is what runs.

        Raises:
            UsageError: always.
        """
        raise UsageError("ONNX Runtime builds no engine: it runs the graph as it is", where=onnx_file)

    def open(self, file: Path, options: RunOptions = USUAL) -> OrtSession:
        """Open an ONNX graph on the GPU, or on all physical cores this process may use.

        Raises:
            UsageError: a CUDA graph is asked.
            MissingExtra: onnxruntime is not installed.
            EnvironmentLacks: it is installed and does not load, or CUDA is there and cannot be used.
            GraphError: ONNX Runtime refuses the graph.
        """
        return self._session(file, options)

    def layer_times(
        self,
        file: Path,
        images: NDArray[np.float32],
        *,
        runs: int = 50,
        options: RunOptions = USUAL,
    ) -> tuple[LayerTime, ...]:
        """Time a graph node by node, as ONNX Runtime's optimizer left it, by its profiler (microseconds).

        Args:
            file: the graph.
            images: (N, C, H, W), normalised, one batch.
            runs: that count, after a few to warm up.
            options: as for `open`.

        Raises:
            UsageError, MissingExtra, EnvironmentLacks, GraphError: as `open`.
        """
        with tempfile.TemporaryDirectory(prefix="cnnx-") as folder:
            session = self._session(file, options, profile=Path(folder) / "p")
            for _ in range(_WARMING_RUNS + runs):
                session.run(images)
            return _layer_times(session.end_profiling(), runs)

    def _session(self, file: Path, options: RunOptions, *, profile: Path | None = None) -> OrtSession:
        if options.cuda_graph:
            raise UsageError(
                "CUDA graphs are of TensorRT's engines, ONNX Runtime runs the graph as it is",
                where=file,
                hint="build an engine first (cnnx build), or leave --cuda-graph out",
            )
        if reason := self.missing():
            raise reason
        return OrtSession(file, self._bindings(), device=self.device(), profile=profile)

    def device(self) -> Device:
        """Where `open` puts a graph.

        Raises:
            EnvironmentLacks: onnxruntime is installed and does not load.
        """
        # NVML lists a GPU that CUDA_VISIBLE_DEVICES hides from CUDA.
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
        with_cuda = self.missing() is None and _CUDA in self._bindings().get_available_providers()
        gpu = self._find_gpu() if with_cuda and not hidden else None
        return Device("gpu", gpu.name) if gpu else cpu_device()


class OrtSession:
    """One graph, loaded. Satisfies `cnnx.runtimes.Session`."""

    runtime = "ort"

    def __init__(self, file: Path, ort: Any, *, device: Device, profile: Path | None = None) -> None:
        self.runtime_version: str = ort.__version__
        self.device = device
        self._session: Any = _load(ort, file, on_gpu=device.kind == "gpu", profile=profile)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            raise GraphError(
                "a classifier has one input of float32 or float16, this graph has "
                + (", ".join(f"{one.name}: {one.type}" for one in inputs) or "none"),
                where=file,
            )
        self._input = inputs[0]
        self._dtype = _DTYPES[self._input.type]
        self.output_names: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run N pictures; a graph of static batch b runs in slices of b.

        Args:
            images: (N, C, H, W), normalised.

        Raises:
            ImageError: the pictures do not fit the input.
            GraphError: ONNX Runtime fails while running.
        """
        shape = self._input.shape
        check_images(images, shape)
        size, least = (shape[0], shape[0]) if isinstance(shape[0], int) else (len(images), 1)
        return run_in_batches(self._run, images, size=size, least=least)

    def end_profiling(self) -> Path:
        """Close the session; gives the file with the events of its runs."""
        file = Path(self._session.end_profiling())
        self.close()
        return file

    def close(self) -> None:
        """Free the graph and its thread pool."""
        self._session = None

    def _run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        feed = {self._input.name: images.astype(self._dtype, copy=False)}
        try:
            values = self._session.run(self.output_names, feed)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if self._session is None:
                raise UsageError("the session is closed") from None
            raise GraphError(f"ONNX Runtime failed: {_sentence(error)}") from error
        return dict(zip(self.output_names, map(_widened, values), strict=True))


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:  # a wheel for another numpy, a library it links to that is absent
        raise EnvironmentLacks(
            f"onnxruntime is installed and does not load: {error}", hint="pip install --upgrade 'cnnx[cpu]'"
        ) from error
    return onnxruntime


def _layer_times(events: Path, runs: int) -> tuple[LayerTime, ...]:
    """Medians of each node's last runs, from events such as

    {"cat": "Node", "name": "conv1_kernel_time", "dur": 12, "args": {"op_name": "Conv"}}.
    """
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in json.loads(events.read_text(encoding="utf-8")):
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            times[name[: -len(_KERNEL)], event["args"]["op_name"]].append(event["dur"])
    return tuple(
        LayerTime(name, op, kind_of_operator(op), 1000 * statistics.median(taken[-runs:]))
        for (name, op), taken in times.items()
    )


def _load(ort: Any, file: Path, *, on_gpu: bool, profile: Path | None = None) -> onnxruntime.InferenceSession:
    if not file.is_file():
        raise GraphError("there is no such file", where=file)
    providers: list[Any] = [(_CUDA, _CUDA_OPTIONS), _CPU] if on_gpu else [_CPU]
    if on_gpu and hasattr(ort, "preload_dlls"):  # CUDA's and cuDNN's wheels are on no search path
        ort.preload_dlls()
    try:
        # By path: handing over bytes would hold the weights twice while it loads.
        options = _options(ort)
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        session = ort.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # as in OrtSession._run
        raise GraphError(f"ONNX Runtime refuses the graph: {_sentence(error)}", where=file) from error
    # Where CUDA's libraries do not load it goes on with the CPU and logs that: a figure would be mislabelled.
    if on_gpu and session.get_providers()[0] != _CUDA:
        raise EnvironmentLacks(
            "ONNX Runtime is built for CUDA, a GPU is here, and its CUDA provider does not load",
            hint="install the CUDA and cuDNN that it wants, or set CUDA_VISIBLE_DEVICES= for the CPU",
        )
    return session


def _options(ort: Any) -> onnxruntime.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = _FATAL_ONLY
    # Leave Q/DQ as it is written. By default ORT turns INT8 activations into UINT8, and biases of
    # quantized convolutions into INT32 with a scale of its own: a judge of the graph that TensorRT will
    # compile must not. On a three-convolution Q/DQ net with FP32 scales that moves values across
    # quantization steps in a fifth of the images: up to 8e-3 of the largest logit off the ONNX
    # reference, against 2e-7 in all of them this way (which is no slower: 0.17 ms an image, 0.24).
    # It also makes constant folding take in the DequantizeLinear of INT8 weights, otherwise done again
    # in every run: a 4096 x 25088 Gemm (VGG-16's first) with FP16 scales takes 25 ms instead of 515.
    # Folding stops at 1 GiB an output (optimization.constant_folding_max_output_size_in_bytes); that
    # Gemm unfolds to 0.4. (ORT 1.31.1, two cores.)
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _sentence(error: Exception) -> str:
    """ORT's own words, without its error code, source position, and paths of the machine it was built on."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", str(error))
    text = re.sub(r"^Load model from .*? failed:\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ [^()]*\([^()]*\) ", "", text)
    lines = text.strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")


RUNTIME = OrtRuntime()
