"""Running a TensorRT engine, of whichever of NVIDIA's libraries: the caller brings the loaded bindings.

The calls used are the same in TensorRT 10.3 to 11 and in TensorRT for RTX (NVIDIA's Python API reference).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cnnx.errors import BundleError, EnvironmentLacks, UsageError
from cnnx.runtimes.batches import check_images, run_in_batches
from cnnx.runtimes.cudart import Buffer, CudaRuntime, Stream


class Log(Protocol):
    """The process's one TensorRT logger: an ILogger that remembers its last errors."""

    def clear(self) -> None:
        """Forget what was said."""
        ...

    def said(self) -> str:
        """The last errors, in one line."""
        ...


class EngineSession:
    """An engine on the first GPU: memory allocated once, copies and kernels on one stream.

    Satisfies `cnnx.runtimes.Session`. `run` includes the copies to and from the device.

    Args:
        file: the engine. It is native code: its hash has been checked against a trusted manifest.
        trt: the bindings' module.
        cuda: the CUDA runtime that the bindings use.
        log: passed to TensorRT, and asked when it fails.
        runtime: name in `cnnx.runtimes.NAMES`.

    Raises:
        BundleError: the engine is damaged, of another release, or for another GPU.
        EnvironmentLacks: CUDA reports an error, such as too little memory.
    """

    def __init__(self, file: Path, trt: Any, *, cuda: CudaRuntime, log: Log, runtime: str) -> None:
        self.runtime, self.runtime_version = runtime, str(trt.__version__)
        self.device = cuda.device_name()
        self._cuda, self._log = cuda, log
        log.clear()
        self._trt_runtime: Any = trt.Runtime(log)
        self._engine: Any = self._trt_runtime.deserialize_cuda_engine(file.read_bytes())
        self._context: Any = self._engine.create_execution_context() if self._engine is not None else None
        if self._context is None:
            raise BundleError(
                f"{runtime} does not take the engine: {log.said()}",
                where=file,
                mend="build it again with this release and for this GPU",
            )
        self._describe(trt)
        self._stream = Stream(cuda)
        self._buffers: dict[str, Buffer] = {}
        try:
            self._allocate()
        except EnvironmentLacks:
            self.close()
            raise

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run N pictures, in slices of the engine's largest batch.

        Args:
            images: (N, C, H, W), normalised.

        Raises:
            ImageError: the pictures do not fit the input.
            EnvironmentLacks: CUDA or TensorRT reports an error.
        """
        if self._context is None:
            raise UsageError("the session is closed")
        check_images(images, ("N", *self._shape[1:]))
        return run_in_batches(self._run, images, size=self._shape[0], fixed=self._fixed)

    def close(self) -> None:
        """Free the memory on the device and the engine."""
        if self._context is None:
            return
        for buffer in self._buffers.values():
            buffer.free()
        self._stream.free()
        # In this order: a context must not outlive its engine, nor an engine its runtime.
        self._context = None
        self._engine = None
        self._trt_runtime = None

    def _describe(self, trt: Any) -> None:
        """Names and types of inputs and outputs; shape of the input at the largest batch."""
        engine = self._engine
        self._names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in self._names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise BundleError(f"a classifier has one input, this engine has {len(inputs)}")
        self._input: str = inputs[0]
        self.output_names: tuple[str, ...] = tuple(name for name in self._names if name not in inputs)
        self._dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in self._names}
        shape = tuple(engine.get_tensor_shape(self._input))
        self._fixed = shape[0] != -1
        largest = shape if self._fixed else tuple(engine.get_tensor_profile_shape(self._input, 0)[2])
        self._shape: tuple[int, ...] = largest

    def _allocate(self) -> None:
        """Buffers for the largest batch."""
        self._set_batch(self._shape[0])
        for name in self._names:
            elements = math.prod(self._context.get_tensor_shape(name))
            self._buffers[name] = Buffer(self._cuda, elements=elements, dtype=self._dtypes[name])
            self._context.set_tensor_address(name, self._buffers[name].address)

    def _set_batch(self, size: int) -> None:
        if not self._context.set_input_shape(self._input, (size, *self._shape[1:])):
            raise UsageError(
                f"the engine does not take a batch of {size}: {self._log.said()}",
                mend="keep to the range of batches it was built for",
            )
        self._batch = size

    def _run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        if len(images) != self._batch:
            self._set_batch(len(images))
        source = self._buffers[self._input]
        source.host[: images.size] = images.reshape(-1)
        source.upload(images.size, self._stream)
        if not self._context.execute_async_v3(self._stream.handle):
            raise EnvironmentLacks(f"{self.runtime} did not run: {self._log.said()}")
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self.output_names}
        for name, shape in shapes.items():
            self._buffers[name].download(math.prod(shape), self._stream)
        self._stream.synchronize()
        return {name: self._read(name, shape) for name, shape in shapes.items()}

    def _read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A copy, as the next run overwrites the buffer; FP16 widened."""
        values = self._buffers[name].host[: math.prod(shape)].reshape(shape)
        return values.astype(np.float32) if values.dtype == np.float16 else values.copy()
