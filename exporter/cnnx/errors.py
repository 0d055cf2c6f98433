"""Exceptions raised by cnnx, and the exit code of each.

    CnnxError
    ├── UsageError          2  contradictory command-line options or arguments
    ├── InputRefused        3  unusable input
    │   ├── RecipeError        a recipe
    │   ├── WeightsError       a checkpoint
    │   ├── ImageError         an image or an image set
    │   ├── GraphError         an ONNX graph
    │   ├── GateError          a file of gates
    │   ├── RecordError        a record, or records that cannot be compared
    │   ├── HostsError         a file of hosts
    │   └── BundleError        a bundle or one of its files
    ├── EnvironmentLacks    4  a missing requirement of the machine or installation
    │   ├── MissingExtra       a Python package that an extra of cnnx installs
    │   ├── Unreachable        no network, or no answer from a server
    │   └── WriteFailed        a disk that is full, read-only or over quota
    └── BuildFailed         5  no engine, or one of another precision than requested

Exit codes 0, 1 and 6 are verdicts, not errors; see `cnnx.stats.Verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping


def install_hint(extra: str, flags: str = "") -> str:
    """Return the command that installs an extra. cnnx is not on a package index."""
    return f"pip install {flags}'.[{extra}]', in a copy of the cnnx repository"


class CnnxError(Exception):
    """Base class of cnnx errors: what is wrong, where, and how to fix it.

    Args:
        what: one sentence without a final period.
        where: file, node, key or option at fault.
        hint: hint that names the command or the change that fixes it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.hint is not None:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)


class UsageError(CnnxError):
    """Options or arguments that are invalid or contradict each other."""

    exit_code = 2


class InputRefused(CnnxError):
    """Input that cannot be used."""

    exit_code = 3


class RecipeError(InputRefused):
    """A recipe that is unknown, malformed, or not trusted to run its code."""


class WeightsError(InputRefused):
    """A checkpoint that is damaged, unsafe, or made for another network."""


class ImageError(InputRefused):
    """An image or an image set that cannot be used."""


class GraphError(InputRefused):
    """An ONNX graph that is damaged, unsafe, or not supported by TensorRT."""


class GateError(InputRefused):
    """A file of gates that cannot be read."""


class RecordError(InputRefused):
    """A record or report that cannot be read, or records that cannot be compared."""


class HostsError(InputRefused):
    """A file of hosts that cannot be read, or whose values cannot be used."""


class BundleError(InputRefused):
    """A bundle that is incomplete, damaged, or made for another environment."""


class EnvironmentLacks(CnnxError):
    """A requirement that the machine or its installation does not meet."""

    exit_code = 4


class MissingExtra(EnvironmentLacks):
    """A missing Python package that the cnnx extra `extra` installs."""

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            hint=install_hint(extra),
        )


class Unreachable(EnvironmentLacks):
    """The network is unreachable, or a server did not answer."""


class WriteFailed(EnvironmentLacks):
    """A file could not be written: the disk is full, read-only or over quota."""


class BuildFailed(CnnxError):
    """An engine was not built, or not in the requested precision.

    Args:
        what: as for `CnnxError`.
        where: as for `CnnxError`.
        hint: as for `CnnxError`.
        evidence: file name -> text, of what the builder reported about an engine that was refused.
    """

    exit_code = 5

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        hint: str | None = None,
        evidence: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.evidence = dict(evidence or {})
