"""Copies of a bundle's files, for packages."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

from cnnx.bundle import ENGINE, EVIDENCE, MANIFEST, Bundle
from cnnx.bundle.engine import Engine
from cnnx.bundle.signature import SIGNATURE, claims_of, is_signature


def copy_bundle(bundle: Bundle, folder: Path) -> tuple[str, ...]:
    """Copy the portable files and the current engines into a new folder, and a signature that covers them.

    Returns:
        Notes: if the bundle holds its source, or if there is a signature, and it covers other files, too.

    Raises:
        BundleError: a file is damaged.
    """
    bundle.verify()
    names = [MANIFEST, *bundle.manifest.files]
    for engine in bundle.engines():
        bundle.engine_file(engine)
        place = f"engines/{engine.identity}"
        reported = [name for name in EVIDENCE if (bundle.path / place / name).is_file()]
        names += [f"{place}/{name}" for name in (engine.file, ENGINE, *reported)]
    signed, whole = is_signature(bundle.path / SIGNATURE), _is_whole(bundle, names)
    if whole:
        names.append(SIGNATURE)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, folder / name)
    notes = []
    if sizes := bundle.source_sizes():
        mib = sum(sizes.values()) / 2**20
        notes.append(
            f"The package includes the bundle's source ({mib:.1f} MiB), for cnnx diagnose; its program does "
            "not read it."
        )
    if signed and not whole:
        notes.append(
            "The signature covers files that are not in the package, so it was left out: sign it again."
        )
    return tuple(notes)


def _is_whole(bundle: Bundle, names: list[str]) -> bool:
    """Whether the bundle has a signature that covers exactly these files."""
    file = bundle.path / SIGNATURE
    return is_signature(file) and set(claims_of(file.read_bytes(), where=file)) == set(names)


def engines_of(bundle: Bundle, runtime: str) -> tuple[Engine, ...]:
    """The current engines of one runtime, such as "tensorrt"."""
    return tuple(engine for engine in bundle.engines() if engine.runtime == runtime)


def fill_in(template: Path, out: Path, **values: object) -> None:
    """Write a text file from a template with $names."""
    out.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
