"""Execution contexts of TensorRT for RTX whose kernels are compiled for a shape before they run.

With a dynamic batch, TensorRT for RTX runs a general kernel first and compiles one for the shape meanwhile
("Working with Dynamic Shapes"). A latency measured then, or a CUDA graph captured then, is that of the
general kernel ("Working with RTX CUDA Graphs"). With eager specialization the first run of a shape waits for
its kernels. TensorRT has neither, so the classes and functions are looked up.
"""

from __future__ import annotations

from typing import Any


def create_context(trt: Any, engine: Any) -> Any:
    """Execution context of an engine, with eager specialization where there is any; None without memory."""
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return engine.create_execution_context()
    runtime_config = engine.create_runtime_config()
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    runtime_config.dynamic_shapes_kernel_specialization_strategy = eager
    return engine.create_execution_context(runtime_config)


def can_be_captured(context: Any, stream_handle: int) -> bool:
    """Whether a run can be captured as a CUDA graph; True if the runtime does not report it."""
    return not hasattr(context, "is_stream_capturable") or bool(context.is_stream_capturable(stream_handle))
