"""The deep learning accelerator of a Jetson: where it can be used, and which layers it leaves to the GPU.

Decided by a table of device, JetPack and TensorRT, not by whether a flag exists: the flags are there in
releases that cannot use a DLA. Sources: NVIDIA's TensorRT pages "Strongly Typed Networks for DLA" of 11.3.0
(10.7 was the last release with DLA), 11.4.0 (none) and 11.4.1 (Jetson AGX Orin with JetPack 7.2.2 or later;
not Thor); JetPack 6.1 and 6.2 ship TensorRT 10.3; Jetson Orin Nano has no DLA (its data sheet).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from cnnx.errors import UsageError


@dataclass(frozen=True, slots=True)
class _Row:
    """Devices, JetPacks and releases (from, to: both included), and why no DLA there; "" where there is."""

    device: str
    jetpack: tuple[str, str]
    tensorrt: tuple[str, str]
    why_not: str


_ANY = ("0", "9999")
# The first row that fits decides; none: nothing is known, so nothing is promised.
_TABLE = (
    _Row("Thor", _ANY, _ANY, "Jetson Thor has no DLA"),
    _Row("Orin Nano", _ANY, _ANY, "Jetson Orin Nano has no DLA"),
    _Row("Orin", ("6", "6.9999"), ("10.3", "10.3.9999"), ""),
    _Row("AGX Orin", ("7.2.2", "9999"), ("11.4.1", "9999"), ""),
    _Row("Orin", _ANY, ("11.4.1", "9999"), "TensorRT 11.4.1 has DLA on AGX Orin with JetPack 7.2.2 alone"),
    _Row("Orin", _ANY, ("10.8", "11.4.0.9999"), "TensorRT 10.8 to 11.4.0 have no DLA"),
)


def check_dla(
    precision: str, *, batch: tuple[int, int, int], board: str | None, jetpack: str | None, tensorrt: str
) -> None:
    """Refuse a build for a DLA that is not there, or that cnnx does not promise.

    Args:
        precision: "fp32", "fp16" or "int8".
        batch: smallest, best and largest; a DLA takes one shape.
        board: as the device tree names it, such as "NVIDIA Jetson AGX Orin Developer Kit".
        jetpack: version.
        tensorrt: version.

    Raises:
        UsageError: it names the device and both versions.
    """
    if precision == "int8":
        # Its documented way takes UINT8 with FP32 scales; NVIDIA's maintainers say that it takes implicit,
        # not explicit, quantization (TensorRT #2222).
        raise UsageError("INT8 from Q/DQ on a DLA is unproven", hint="export with --fp16 for the DLA")
    if precision != "fp16":
        raise UsageError(f"a DLA does not compute {precision.upper()}", hint="export with --fp16 for the DLA")
    if batch[0] != batch[2]:
        raise UsageError(
            f"a DLA takes one batch size, not {batch[0]} to {batch[2]}", hint="export with one --batch"
        )
    if (reason := why_no_dla(board, jetpack, tensorrt)) is not None:
        raise UsageError(
            f"{reason} (here: {board or 'no Jetson'}, JetPack {jetpack}, TensorRT {tensorrt})",
            hint="build for the GPU: leave the DLA core out",
        )


def why_no_dla(board: str | None, jetpack: str | None, tensorrt: str) -> str | None:
    """Why there is no DLA to use here, or None where there is."""
    for row in _TABLE:
        if (
            re.search(row.device, board or "")
            and _within(jetpack or "0", row.jetpack)
            and _within(tensorrt, row.tensorrt)
        ):
            return row.why_not or None
    return "cnnx knows of no DLA here"


def use_dla(trt: Any, builder: Any, network: Any, config: Any, *, core: int) -> tuple[str, ...]:
    """Set a configuration up for a DLA core, with the GPU for what it cannot do.

    Returns:
        Names of the layers left to the GPU.

    Raises:
        UsageError: no such core.
    """
    if core >= builder.num_DLA_cores:
        raise UsageError(
            f"DLA core {core} was asked, here are {builder.num_DLA_cores}", hint="cores count from 0"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def _within(version: str, span: tuple[str, str]) -> bool:
    try:
        return Version(span[0]) <= Version(version) <= Version(span[1])
    except InvalidVersion:
        return False
