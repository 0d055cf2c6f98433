"""Reads the header of a plan, which names the release that built it, without loading TensorRT.

    bytes 0..3     "ftrt" (TensorRT) or "vtrt" (TensorRT for RTX)
    bytes 4..7     0
    bytes 24..27   major, minor, patch and build of the release

TensorRT 8.6 and later; `trtexec --getPlanVersionOnly` reads the same. That of TensorRT for RTX was read off
plans of 1.7.1.116. The header is not signed: it catches accidents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PRODUCTS = {b"ftrt": "tensorrt", b"vtrt": "rtx"}
_LENGTH = 28


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What a plan says about itself.

    Attributes:
        runtime: runtime that built it: "tensorrt" or "rtx".
        release: major, minor and patch of its release, such as "10.3.0".
    """

    runtime: str
    release: str


def read_plan_header(file: Path) -> PlanHeader | None:
    """The header of a plan; None if the file does not start like one.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as opened:
        head = opened.read(_LENGTH)
    if len(head) < _LENGTH or head[:4] not in _PRODUCTS or head[4:8] != bytes(4):
        return None
    return PlanHeader(_PRODUCTS[head[:4]], ".".join(map(str, head[24:27])))
