"""Where recipes/ and calibration/ lie: in the checkout while there is one, else inside the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def shared_folder(name: Literal["recipes", "calibration"]) -> Path:
    """The live folder of a checkout (so that an edited recipe counts at once) or the wheel's copy."""
    checkout = _PACKAGE.parent.parent
    if _PACKAGE.parent.name == "exporter" and (checkout / "pyproject.toml").is_file():
        return checkout / name
    return _PACKAGE / "_shared" / name
