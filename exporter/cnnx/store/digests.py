"""SHA-256 of files and of plain data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_of(data: Any) -> str:
    """SHA-256, in hex, of plain data in its canonical JSON form."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256, in hex, of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
