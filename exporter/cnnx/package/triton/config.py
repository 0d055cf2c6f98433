"""Writes config.pbtxt, a `inference.ModelConfig` in protobuf's text format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnx.bundle import MODEL, Bundle
from cnnx.package.triton.plans import Plans

_QUEUE_DELAY_US = 100
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}


def config(bundle: Bundle, *, name: str, backend: str, batch: tuple[int, int], plans: Plans) -> str:
    """The configuration of one model.

    Triton batches requests only if the model takes every batch from 1 to a largest one. Otherwise
    `max_batch_size` is 0, and the dimensions contain the batch.

    Args:
        bundle: the bundle.
        name: name of the model, and of its folder.
        backend: "tensorrt" or "onnxruntime".
        batch: smallest and largest batch.
        plans: the engines.
    """
    image = bundle.manifest.inputs[0]
    # A graph with a dynamic batch takes any on ONNX Runtime, and Triton then completes max_batch_size itself.
    batched = image.shape[0] is None and (batch[0] == 1 or backend == "onnxruntime")
    lines = [
        f"name: {quoted(name)}",
        f"backend: {quoted(backend)}",
        f"default_model_filename: {quoted(MODEL if backend == 'onnxruntime' else 'model.plan')}",
        f"max_batch_size: {batch[1] if batched else 0}",
        *_tensor("input", image.name, image.type, _dims(image.shape, batched=batched)),
    ]
    output = bundle.manifest.outputs[0]
    dims = _dims(output.shape, batched=batched)
    lines += _tensor("output", output.name, output.type, dims, labels="labels.txt")
    kind = "KIND_GPU" if backend == "tensorrt" else "KIND_AUTO"
    lines.append(f"instance_group [ {{ count: 1 kind: {kind} }} ]")
    if batched and batch[1] > 1:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_DELAY_US} }}")
    if backend == "tensorrt":
        lines.append("optimization { cuda { graphs: true } }")
        for capability, file in plans.by_capability.items():
            lines.append(f"cc_model_filenames {{ key: {quoted(capability)} value: {quoted(file)} }}")
    else:
        # No optimizations: even "basic" moves Q/DQ, and the others replace them by integer kernels.
        lines.append("optimization { graph { level: 2 } }")
    for size in sorted({1, batch[1]} if batched else {1}):
        lines += _warmup(image.name, image.type, image.shape, size=size, batch=batch, batched=batched)
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string literal of protobuf's text format."""
    escaped = "".join(
        f"\\{character}"
        if character in '"\\'
        else character
        if " " <= character != "\x7f"
        else f"\\{ord(character):03o}"
        for character in text
    )
    return f'"{escaped}"'


def _dims(shape: Sequence[int | None], *, batched: bool) -> str:
    sizes = shape[1:] if batched else shape
    return f"[ {', '.join(str(-1 if size is None else size) for size in sizes)} ]"


def _tensor(what: str, name: str, kind: str, dims: str, *, labels: str = "") -> Iterator[str]:
    yield f"{what} ["
    yield f"  {{ name: {quoted(name)} data_type: {_TYPES[kind]} dims: {dims}"
    if labels:
        yield f"    label_filename: {quoted(labels)}"
    yield "  }"
    yield "]"


def _warmup(
    name: str, kind: str, shape: Sequence[int | None], *, size: int, batch: tuple[int, int], batched: bool
) -> Iterator[str]:
    """A first request at load, which otherwise delays a client."""
    fixed = [shape[0] or batch[0], *shape[1:]]
    yield "model_warmup ["
    yield f"  {{ name: {quoted(f'batch of {size if batched else fixed[0]}')} batch_size: {size}"
    yield f"    inputs {{ key: {quoted(name)} value: {{"
    yield f"      data_type: {_TYPES[kind]} dims: {_dims(fixed, batched=batched)} random_data: true"
    yield "    } }"
    yield "  }"
    yield "]"
