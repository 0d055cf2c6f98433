"""Checks where the deep learning accelerator (DLA) of a Jetson can be used, and configures builds for it.

A table of device, JetPack and TensorRT decides, not the presence of a flag: the flags also exist in
releases that cannot use a DLA. Sources: NVIDIA's TensorRT pages "Strongly Typed Networks for DLA" of 11.3.0
(10.7 was the last release with DLA), 11.4.0 (none) and 11.4.1 (Jetson AGX Orin with JetPack 7.2.2 or later;
not Thor); JetPack 6.1 and 6.2 ship TensorRT 10.3; Jetson Orin Nano has no DLA (its data sheet).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from packaging.version import InvalidVersion, Version

from cnnx.errors import BuildFailed, UsageError


@dataclass(frozen=True, slots=True)
class _Row:
    """Devices, ranges of JetPack and TensorRT (inclusive), and why they have no DLA; "" if they have one."""

    device: str
    jetpack: tuple[str, str]
    tensorrt: tuple[str, str]
    why_not: str


_ANY = ("0", "9999")
# The first matching row decides. Without one, cnnx does not allow a DLA.
_TABLE = (
    _Row("Thor", _ANY, _ANY, "Jetson Thor has no DLA"),
    _Row("Orin Nano", _ANY, _ANY, "Jetson Orin Nano has no DLA"),
    _Row("Orin", ("6", "6.9999"), ("10.3", "10.3.9999"), ""),
    _Row("AGX Orin", ("7.2.2", "9999"), ("11.4.1", "9999"), ""),
    _Row(
        "Orin",
        _ANY,
        ("11.4.1", "9999"),
        "TensorRT 11.4.1 supports DLA only on AGX Orin with JetPack 7.2.2 or newer",
    ),
    _Row("Orin", _ANY, ("10.8", "11.4.0.9999"), "TensorRT 10.8 to 11.4.0 do not support DLA"),
)


def check_dla(
    precision: str, *, batch: tuple[int, int, int], board: str | None, jetpack: str | None, tensorrt: str
) -> None:
    """Reject a build for a DLA that does not exist or that cnnx does not support.

    Args:
        precision: "fp32", "fp16" or "int8".
        batch: smallest, optimal and largest batch; a DLA supports only one shape.
        board: name in the device tree, such as "NVIDIA Jetson AGX Orin Developer Kit".
        jetpack: version of JetPack.
        tensorrt: version of TensorRT.

    Raises:
        UsageError: the DLA cannot be used; the message names the device and both versions.
    """
    if precision == "int8":
        # The documented method uses UINT8 with FP32 scales; according to NVIDIA's maintainers, DLA supports
        # implicit but not explicit quantization (TensorRT #2222).
        raise UsageError(
            "cnnx cannot build INT8 for a DLA, which does not support Q/DQ nodes", hint="export with --fp16"
        )
    if precision != "fp16":
        raise UsageError(f"a DLA does not support {precision.upper()}", hint="export with --fp16 for the DLA")
    if batch[0] != batch[2]:
        raise UsageError(
            f"a DLA supports only one batch size, not {batch[0]} to {batch[2]}",
            hint=f"export with a single size, such as --batch {batch[2]}",
        )
    if (reason := why_no_dla(board, jetpack, tensorrt)) is not None:
        raise UsageError(
            f"{reason} (this machine: {board or 'not a Jetson'}, JetPack {jetpack}, TensorRT {tensorrt})",
            hint="build for the GPU: leave out --dla",
        )


def why_no_dla(board: str | None, jetpack: str | None, tensorrt: str) -> str | None:
    """Why a DLA cannot be used on this machine; None if it can."""
    for row in _TABLE:
        if (
            re.search(row.device, board or "")
            and _within(jetpack or "0", row.jetpack)
            and _within(tensorrt, row.tensorrt)
        ):
            return row.why_not or None
    return "cnnx does not support a DLA on this machine"


def takes_strong_types(trt: Any) -> bool:
    """Whether networks for a DLA may be strongly typed: since TensorRT 11, which has nothing else.

    For a DLA, trtexec of TensorRT 10.3 always sets the flag FP16, which is not allowed in a strongly typed
    network (BuilderFlag.FP16).
    """
    return "FP16" not in trt.BuilderFlag.__members__


def use_dla(trt: Any, builder: Any, network: Any, config: Any, *, core: int) -> tuple[str, ...]:
    """Configure a build for a DLA core, with the GPU as fallback for layers that it cannot run.

    Returns:
        Names of the layers left to the GPU.

    Raises:
        UsageError: the core does not exist.
    """
    if core >= builder.num_DLA_cores:
        raise UsageError(
            f"invalid DLA core {core}: this device has {builder.num_DLA_cores}",
            hint="cores are numbered from 0: give --dla 0, for example",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if not takes_strong_types(trt):
        config.set_flag(trt.BuilderFlag.__members__["FP16"])
    layers = (network.get_layer(index) for index in range(network.num_layers))
    return tuple(layer.name for layer in layers if not config.can_run_on_DLA(layer))


def refuse_unused(on_gpu: Collection[str], weighted: Collection[str]) -> None:
    """Refuse an engine for a DLA that would run all layers with weights on the GPU.

    Raises:
        BuildFailed: the DLA runs none of them.
    """
    if weighted and set(weighted) <= set(on_gpu):
        raise BuildFailed(
            f"the DLA can run none of the {len(weighted)} layers with weights: they would all run on the GPU",
            hint="build for the GPU: leave out --dla",
        )


def _within(version: str, span: tuple[str, str]) -> bool:
    try:
        return Version(span[0]) <= Version(version) <= Version(span[1])
    except InvalidVersion:
        return False
