"""ONNX Runtime: runs graphs on CUDA if it is installed and a GPU is visible, else on the CPU."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cnnx.device import Device
from cnnx.errors import CnnxError, EnvironmentLacks, GraphError, MissingExtra, UsageError, install_hint
from cnnx.machine.environment import Gpu, cpu_device, detect_gpu, installed_version, usable_cores
from cnnx.runtimes import USUAL, BuildRequest, BuiltEngine, RunOptions
from cnnx.runtimes.batches import Images, check_images, run_in_batches
from cnnx.runtimes.layer_times import LayerTime
from cnnx.runtimes.ort.profile import read_profile
from cnnx.store.files import scratch_folder

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_WARMING_RUNS = 5
# Errors are raised as exceptions; logging them as well would clutter the user's terminal.
_FATAL_ONLY = 4
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# TF32 has only FP16's ten bits of mantissa: an FP32 graph would not run in FP32.
_CUDA_OPTIONS = {"device_id": 0, "use_tf32": 0}


class OrtRuntime:
    """ONNX Runtime. Its CPU provider computes FP16 graphs in FP32, so overflow does not show.

    CUDA is used if onnxruntime-gpu is installed and a GPU is visible. As for every CUDA program, an empty
    CUDA_VISIBLE_DEVICES hides the GPU.

    Args:
        bindings: returns the module onnxruntime; tests pass an imitation.
        find_gpu: returns the GPU that a graph would run on, or None.
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
        """Same as `missing`: there is always a CPU."""
        return self.missing()

    def load(self) -> None:
        """Load onnxruntime. The CUDA context is created with the first session, not here."""
        self._bindings()

    def version(self) -> str | None:
        """Installed version."""
        return installed_version("onnxruntime")

    def check_capabilities(self, capabilities: Sequence[int]) -> None:
        """Reject any: ONNX Runtime does not build engines.

        Raises:
            UsageError: a compute capability is given.
        """
        if capabilities:
            raise UsageError(
                "--sm is a GPU to build for, and the target ort does not build engines",
                hint="leave out --sm, or use --target rtx",
            )

    def emits(self) -> bool:
        """No: a graph can have any of its tensors as outputs instead."""
        return False

    def build(self, onnx_file: Path, request: BuildRequest) -> list[BuiltEngine]:
        """Raise: ONNX Runtime runs the graph itself.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "ONNX Runtime does not build engines: it runs the graph itself",
            where=onnx_file,
            hint="use --target rtx or --target tensorrt to build an engine",
        )

    def open(self, file: Path, options: RunOptions = USUAL) -> OrtSession:
        """Open an ONNX graph on the GPU, or on all physical cores this process may use.

        Raises:
            UsageError: a CUDA graph is requested.
            MissingExtra: onnxruntime is not installed.
            EnvironmentLacks: onnxruntime does not load, or CUDA is available but cannot be used.
            GraphError: ONNX Runtime rejects the graph.
        """
        return self._session(file, options)

    def layer_times(
        self,
        file: Path,
        images: Images,
        *,
        runs: int = 50,
        options: RunOptions = USUAL,
    ) -> tuple[LayerTime, ...]:
        """Time the nodes of the optimized graph with ONNX Runtime's profiler (resolution: microseconds).

        Args:
            file: path of the graph.
            images: (N, C, H, W), normalized, one batch.
            runs: number of timed runs, after the warm-up runs.
            options: as for `open`.

        Raises:
            UsageError, MissingExtra, EnvironmentLacks, GraphError: as `open`; also if ONNX Runtime does not
                time kernels on CUDA.
        """
        with scratch_folder() as folder:
            session = self._session(file, options, profile=folder / "p")
            for _ in range(_WARMING_RUNS + runs):
                session.run(images)
            on_gpu = session.device.kind == "gpu"
            return read_profile(session.end_profiling(), runs, on_gpu=on_gpu)

    def _session(self, file: Path, options: RunOptions, *, profile: Path | None = None) -> OrtSession:
        if options.cuda_graph:
            raise UsageError(
                "CUDA graphs need a TensorRT engine, and ONNX Runtime runs the ONNX graph",
                where=file,
                hint="build an engine first (cnnx build), or leave out --cuda-graph",
            )
        if reason := self.missing():
            raise reason
        return OrtSession(file, self._bindings(), device=self.device(), profile=profile, options=options)

    def device(self) -> Device:
        """Device on which `open` runs a graph.

        Raises:
            EnvironmentLacks: onnxruntime is installed but does not load.
        """
        # NVML also lists GPUs that CUDA_VISIBLE_DEVICES hides from CUDA.
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
        with_cuda = self.missing() is None and _CUDA in self._bindings().get_available_providers()
        gpu = self._find_gpu() if with_cuda and not hidden else None
        return Device("gpu", gpu.name) if gpu else cpu_device()


class OrtSession:
    """A loaded graph. Satisfies `cnnx.runtimes.Session`."""

    runtime = "ort"

    def __init__(
        self,
        file: Path,
        ort: Any,
        *,
        device: Device,
        profile: Path | None = None,
        options: RunOptions = USUAL,
    ) -> None:
        self.runtime_version: str = ort.__version__
        self.device = device
        of_session = _options(ort, options)
        self._session: Any = _load(ort, file, of_session, on_gpu=device.kind == "gpu", profile=profile)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            raise GraphError(
                "a classifier has one input of float32, float16 or uint8, this graph has "
                + (", ".join(f"{one.name}: {one.type}" for one in inputs) or "none"),
                where=file,
                hint="export the network with a single input of float32",
            )
        self._input = inputs[0]
        self._dtype = _DTYPES[self._input.type]
        self.output_names: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())

    def run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        """Run N images; a graph with a fixed batch b runs in slices of b.

        Args:
            images: (N, C, H, W), normalized.

        Raises:
            ImageError: the images do not fit the input.
            GraphError: ONNX Runtime fails during the run.
        """
        shape = self._input.shape
        check_images(images, shape, np.dtype(self._dtype))
        fixed = isinstance(shape[0], int) and shape[0] > 0
        size, least = (shape[0], shape[0]) if fixed else (len(images), 1)
        return run_in_batches(self._run, images, size=size, least=least)

    def sibling(self) -> OrtSession:
        """Another session on the same graph: several threads may call Run of one InferenceSession at once.

        (onnxruntime #114.) All of them share its pool of threads.

        Raises:
            UsageError: the session is closed.
        """
        self._check_open()
        return copy.copy(self)

    def end_profiling(self) -> Path:
        """Close the session and return the file with the events of its runs."""
        file = Path(self._session.end_profiling())
        self.close()
        return file

    def close(self) -> None:
        """Free the graph and its thread pool."""
        self._session = None

    def _check_open(self) -> None:
        if self._session is None:
            raise UsageError("the session is closed", hint="open the graph again") from None

    def _run(self, images: Images) -> dict[str, NDArray[np.float32]]:
        feed = {self._input.name: images.astype(self._dtype, copy=False)}
        try:
            values = self._session.run(self.output_names, feed)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            self._check_open()
            raise GraphError(
                f"ONNX Runtime failed to run the graph: {_sentence(error)}",
                hint="check that the graph accepts this image size; if it was edited, export it again",
            ) from error
        return dict(zip(self.output_names, map(_widened, values), strict=True))


def _import() -> Any:
    # From 1.29, ONNX Runtime reports models and machines to Microsoft, by an identifier and a database that
    # it keeps in ~/.cache/Microsoft (docs/Privacy.md in its repository). It reads the variable on import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:  # a wheel for a different numpy, or a missing library
        raise EnvironmentLacks(
            f"onnxruntime is installed but does not load: {error}", hint=install_hint("cpu", "--upgrade ")
        ) from error
    return onnxruntime


def _load(
    ort: Any,
    file: Path,
    options: onnxruntime.SessionOptions,
    *,
    on_gpu: bool,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    if not file.is_file():
        raise GraphError("no such file", where=file, hint="pass the path of an existing ONNX file")
    providers: list[Any] = [(_CUDA, _CUDA_OPTIONS), _CPU] if on_gpu else [_CPU]
    try:
        # Pass the path: bytes would keep the weights in memory twice during loading.
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profile)
        # Both report failures on standard output, where --json has its object.
        with contextlib.redirect_stdout(sys.stderr):
            if on_gpu and hasattr(ort, "preload_dlls"):  # the loader does not search wheels
                ort.preload_dlls()
            session = ort.InferenceSession(str(file), options, providers=providers)
    except Exception as error:  # as in OrtSession._run
        raise GraphError(
            f"ONNX Runtime rejects the graph: {_sentence(error)}",
            where=file,
            hint="use standard operators up to opset 20; if the file is damaged, copy or export it again",
        ) from error
    # If CUDA's libraries do not load, ONNX Runtime logs that and uses the CPU: results would be mislabeled.
    if on_gpu and session.get_providers()[0] != _CUDA:
        raise EnvironmentLacks(
            "ONNX Runtime supports CUDA and there is a GPU, but the CUDA provider does not load",
            hint="install the CUDA and cuDNN that it needs, or set CUDA_VISIBLE_DEVICES= to use the CPU",
        )
    return session


def _options(ort: Any, wanted: RunOptions) -> onnxruntime.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = wanted.threads or usable_cores()
    options.log_severity_level = _FATAL_ONLY
    if wanted.fuse_qdq:
        return options
    # Run Q/DQ exactly as in the graph, because this session validates the graph that TensorRT compiles. By
    # default ORT turns INT8 activations into UINT8, and biases of quantized convolutions into INT32 with
    # a scale of its own. On a three-convolution Q/DQ network with FP32 scales, that moves values across
    # quantization steps in a fifth of the images: errors reach 8e-3 of the largest logit against the ONNX
    # reference. With this option they are 2e-7 in all images, and runs are not slower (0.17 ms per image
    # instead of 0.24).
    # The option also lets constant folding include the DequantizeLinear of INT8 weights, which otherwise
    # runs every time: a 4096 x 25088 Gemm (VGG-16's first) with FP16 scales takes 25 ms instead of 515.
    # Folding is limited to 1 GiB per output (optimization.constant_folding_max_output_size_in_bytes); that
    # Gemm's weights unfold to 0.4 GiB. (ORT 1.31.1, two cores.)
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _sentence(error: Exception) -> str:
    """ORT's message without its error code, source position and the paths of its build machine."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", str(error))
    text = re.sub(r"^Load model from .*? failed:\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"/\S+\.(?:cc|h):\d+ [^()]*\([^()]*\) ", "", text)
    lines = text.strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(". ")


RUNTIME = OrtRuntime()
