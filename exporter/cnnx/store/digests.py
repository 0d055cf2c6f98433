"""SHA-256 digests of files and plain data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from cnnx.store.reading import open_regular


def digest_of(data: Any) -> str:
    """Hexadecimal SHA-256 of the canonical JSON form of plain data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of the content of a regular file."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
