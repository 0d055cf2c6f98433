"""JSON that tells when it was changed, and files held to their digests. Nothing is used before that."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.errors import BundleError
from cnnx.files import digest_of_file
from cnnx.store import digest_of

SCHEMA = 1
"""Of manifest.json and engine.json."""

_MEND = "copy the bundle again from where it was made, or export it again"


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """JSON whose last key, "seal", is the digest of all the others."""
    plain = json.loads(json.dumps(data))
    text = json.dumps({**plain, "seal": digest_of(plain)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_sealed(path: Path, *, bundle: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without the seal.

    Raises:
        BundleError: it is missing, a byte was changed, or its schema is another.
    """
    if not path.is_file():
        raise BundleError(f"no bundle: {path.name} is missing", where=bundle, mend="cnnx export makes one")
    try:
        text = path.read_bytes().decode("utf-8")
        data: dict[str, Any] = json.loads(text)
        seal = data.pop("seal")
        canonical = json.dumps({**data, "seal": seal}, indent=1, ensure_ascii=False) + "\n"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path.name} is damaged: {error}", where=path, mend=_MEND) from None
    # The text is compared too: a changed space or digit form would survive parsing.
    if digest_of(data) != seal or canonical != text:
        raise BundleError(f"{path.name} was changed after it was written", where=path, mend=_MEND)
    if data.get("schema") != SCHEMA:
        raise BundleError(
            f"{path.name} has schema {data.get('schema')}, this cnnx reads {SCHEMA}",
            where=path,
            mend="use the cnnx that wrote it, or export again",
        )
    return data


def check_file(file: Path, digest: str, *, bundle: Path) -> None:
    """Hold a file to its SHA-256.

    Raises:
        BundleError: it is missing, or a byte was changed.
    """
    if not file.is_file():
        raise BundleError(f"{file.relative_to(bundle)} is missing", where=bundle, mend=_MEND)
    found = digest_of_file(file)
    if found != digest:
        raise BundleError(
            f"{file.relative_to(bundle)} was changed: its SHA-256 is {found[:12]}, not {digest[:12]}",
            where=bundle,
            mend=_MEND,
        )


def dataclass_from_dict(
    cls: type[Any], data: Mapping[str, Any], *, where: Path, later: frozenset[str] = frozenset()
) -> Any:
    """Build a dataclass from plain data that has its fields; `later` ones may be absent."""
    names = {f.name for f in dataclasses.fields(cls)}
    if odd := ", ".join(sorted((set(data) - names) | (names - set(data) - later))):
        raise BundleError(f"{where.name} has other fields than schema {SCHEMA} has: {odd}", where=where)
    return cls(**data)
