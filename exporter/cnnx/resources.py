"""Path of the recipes/ and calibration/ folders, in a checkout or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parent


def shared_folder(name: Literal["recipes", "calibration"]) -> Path:
    """Return the folder of the checkout, so that edits take effect at once, or the wheel's copy."""
    checkout = _PACKAGE.parent.parent
    if _PACKAGE.parent.name == "exporter" and (checkout / "pyproject.toml").is_file():
        return checkout / name
    return _PACKAGE / "_shared" / name
