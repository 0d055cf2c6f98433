"""Makes a wheel of the cnnx that runs, without network or build tools, from an installation or a checkout."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cnnx.errors import EnvironmentLacks, InputRefused
from cnnx.resources import shared_folder

_DATE = (2020, 2, 2, 0, 0, 0)  # the same content gives the same bytes, and is not uploaded twice
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,200}\.whl")
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel to upload.

    Attributes:
        name: its file name.
        sha256: digest of its content.
        content: bytes, or the file that has them.
    """

    name: str
    sha256: str
    content: bytes | Path

    def read(self) -> bytes:
        """Its bytes."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def wheel_of_file(file: Path) -> Wheel:
    """A wheel in a file.

    Raises:
        InputRefused: it is not a wheel.
    """
    if not _NAME.fullmatch(file.name) or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        raise InputRefused("the path is not a wheel", where=file, hint="give a file that ends in .whl")
    with file.open("rb") as opened:
        digest = hashlib.sha256()
        while block := opened.read(1 << 20):
            digest.update(block)
    return Wheel(file.name, digest.hexdigest(), file)


def wheels_in(folder: Path) -> tuple[Wheel, ...]:
    """All wheels in a folder.

    Raises:
        InputRefused: there are none.
    """
    found = tuple(wheel_of_file(file) for file in sorted(folder.glob("*.whl")))
    if not found:
        raise InputRefused(
            "the folder has no wheels",
            where=folder,
            hint="fill it on a machine with internet: pip download --dest FOLDER --platform ...",
        )
    return found


def own_wheel() -> Wheel:
    """The wheel of this cnnx: its package, recipes and calibration sets, with the installed metadata.

    Raises:
        EnvironmentLacks: cnnx runs without being installed, so its requirements are unknown.
    """
    try:
        installed = metadata.distribution("cnnx")
    except metadata.PackageNotFoundError:
        installed = None
    text = installed.read_text("METADATA") if installed else None
    if installed is None or text is None:
        raise EnvironmentLacks(
            "cnnx runs without being installed, so its requirements are unknown",
            hint="install it with pip, or give --wheel FILE",
        )
    name = f"cnnx-{installed.version}"
    info = f"{name}.dist-info"
    files = {
        **_package(),
        f"{info}/METADATA": text.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: cnnx\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\ncnnx = cnnx.cli:main\n",
    }
    for file in installed.files or ():
        if file.parts[-2:-1] == ("licenses",) and file.parts[0].endswith(".dist-info"):
            files[f"{info}/licenses/{file.name}"] = Path(str(installed.locate_file(file))).read_bytes()
    rows = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in sorted(files.items())]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    content = _zipped(files)
    return Wheel(f"{name}-py3-none-any.whl", hashlib.sha256(content).hexdigest(), content)


def _package() -> dict[str, bytes]:
    """Path in the wheel -> content, of the package and of the folders that are beside it in a checkout."""
    package = Path(__file__).resolve().parents[3]
    files = {f"cnnx/{path}": content for path, content in _files(package)}
    for name in ("recipes", "calibration"):
        folder = shared_folder(name)
        files |= {f"cnnx/_shared/{name}/{path}": content for path, content in _files(folder)}
    return files


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if file.is_file() and "__pycache__" not in path.parts and file.suffix != ".pyc":
            yield path.as_posix(), file.read_bytes()


def _digest(content: bytes) -> str:
    """A digest as RECORD has it: URL-safe base64 without padding (PEP 376)."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        # The metadata last, as PEP 427 recommends.
        for path, content in sorted(files.items(), key=lambda item: (".dist-info/" in item[0], item[0])):
            entry = zipfile.ZipInfo(path, _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            opened.writestr(entry, content)
    return archive.getvalue()
