"""Inputs that once found a fault, as <door>/<valid input>/<what went wrong>/<changed files>."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tools import ROOT
from tools.check.fuzz.door import Files

if TYPE_CHECKING:
    from tools.check.fuzz.running import Finding

CORPUS = ROOT / "tests" / "corpus"
_REPORT = "finding.txt"


def save(finding: Finding, folder: Path) -> Path:
    """Write a finding's files, and beside them what went wrong; returns the folder."""
    content = repr(sorted(finding.files.items(), key=lambda item: item[0])).encode()
    slug = _slug(f"{finding.judged.what} {finding.how}")
    home = (
        folder / _slug(finding.door) / finding.seed / f"{slug[:60]}-{hashlib.sha256(content).hexdigest()[:6]}"
    )
    for name, data in finding.files.items():
        if isinstance(data, bytes):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(data)
    home.mkdir(parents=True, exist_ok=True)
    text = f"input {finding.index}: {finding.how}\n{finding.judged.what}\n{finding.judged.detail}\n"
    (home / _REPORT).write_text(text, encoding="utf-8", errors="backslashreplace")
    return home


def entries(door: str, folder: Path = CORPUS) -> Iterator[tuple[str, str, Files]]:
    """Valid input, name and files of each entry of a door."""
    for home in sorted((folder / _slug(door)).glob("*/*")):
        files: dict[str, bytes | Path | None] = {
            path.relative_to(home).as_posix(): path.read_bytes()
            for path in sorted(home.rglob("*"))
            if path.is_file() and path.name != _REPORT
        }
        yield home.parent.name, home.name, files


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
