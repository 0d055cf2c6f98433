"""Every refusal cnnx makes, and the exit code each one carries.

    CnnxError
    ├── UsageError          2  the command line or the call contradicts itself
    ├── InputRefused        3  something the user handed over
    │   ├── RecipeError        a recipe
    │   ├── WeightsError       a checkpoint
    │   ├── ImageError         a picture or a set of them
    │   ├── GraphError         an ONNX graph
    │   └── BundleError        a bundle or a part of it
    ├── EnvironmentLacks    4  the machine or its installation
    │   ├── MissingExtra       a Python package that an extra of cnnx brings
    │   ├── Unreachable        the network, or a server on it
    │   └── WriteFailed        a disk that is full, read-only or limited
    └── BuildFailed         5  an engine was not built, or not in the precision asked

Exit codes 0, 1 and 6 are verdicts, not errors: see `cnnx.stats.Verdict`.
"""

from __future__ import annotations


class CnnxError(Exception):
    """A refusal: what was wrong, where, and what mends it.

    Args:
        what: one sentence, without a full stop at the end.
        where: the file, node, key or option at fault.
        mend: the command or the change that helps.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, mend: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.mend = mend

    def __str__(self) -> str:
        lines = [self.what]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.mend is not None:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)


class UsageError(CnnxError):
    """The command line or the call contradicts itself."""

    exit_code = 2


class InputRefused(CnnxError):
    """Something the user handed over cannot be used."""

    exit_code = 3


class RecipeError(InputRefused):
    """A recipe is unknown, malformed or asks for trust it was not given."""


class WeightsError(InputRefused):
    """A checkpoint is damaged, unsafe, or belongs to another network."""


class ImageError(InputRefused):
    """A picture or a set of pictures cannot be used."""


class GraphError(InputRefused):
    """An ONNX graph is damaged, unsafe, or would be refused by TensorRT."""


class BundleError(InputRefused):
    """A bundle is not whole, not intact, or not meant for this environment."""


class EnvironmentLacks(CnnxError):
    """The machine or its installation lacks something."""

    exit_code = 4


class MissingExtra(EnvironmentLacks):
    """A Python package is absent that one of cnnx's extras brings; `extra` is its name."""

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            mend=f"pip install 'cnnx[{extra}]'",
        )


class Unreachable(EnvironmentLacks):
    """The network, or a server on it, did not answer."""


class WriteFailed(EnvironmentLacks):
    """A file could not be written: the disk is full, read-only or limited."""


class BuildFailed(CnnxError):
    """An engine was not built, or not in the precision that was asked for."""

    exit_code = 5
