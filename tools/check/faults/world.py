"""The files that commands start from: a network, bundles, a survey, a warm cache, and files of the user."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.check.faults.sandbox import Sandbox

NETWORK, OLD, NEW, PHOTOS, KEY, SURVEY = "net.onnx", "old", "new", "photos", "key.pem", "survey"
DIGITS = ("--calibration-data", "digits", "--calibration-images", "16", "--validation-data", "digits")
FEW = (*DIGITS, "--validation-images", "64")
THESES = ("work", "work/old", "cache", "cache/mine", "cache/crops", "cache/export", "tmp")
"""Folders with a file of the user, thesis.txt."""
_THESIS = "years of work"
_QUICK = ("--seconds", "0.02")
_SEARCH = ("--method", "auto", "--repair", "--repair-trials", "4")
_SURVEYED = ("--precisions", "fp16", "--batches", "1", *_QUICK, "--images", "16")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that writes files.

    Attributes:
        name: name in records and tables.
        arguments: arguments of cnnx.
        prepare: changes a copy of the world before it runs.
        refuses: whether it refuses to run again once it is done.
        torch: whether it needs PyTorch.
        kills: how often it is killed.
        removes: whether it removes cached steps.
    """

    name: str
    arguments: Sequence[str]
    prepare: Callable[[Sandbox], None] = field(default=lambda _: None)
    refuses: bool = False
    torch: bool = False
    kills: int = 10
    removes: bool = False


def _cold(sandbox: Sandbox) -> None:
    """Empty the cache, except for the files of the user."""
    for folder in (sandbox.root / "cache").iterdir():
        for path in [folder] if folder.is_file() else list(folder.iterdir()):
            if path.name != "thesis.txt":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _signed(sandbox: Sandbox) -> None:
    sandbox.run(("sign", NEW, "--key", KEY))


COMMANDS = (
    Command("export --int8", ("export", NETWORK, "--int8", *FEW, "--out", OLD), _cold, kills=22),
    Command("export --fp16", ("export", NETWORK, "--fp16", *FEW, "--out", "fresh"), _cold, kills=14),
    Command(
        "export --fp32",
        ("export", NETWORK, "--fp32", *FEW, "--out", "fresh", "--report", "r.html"),
        _cold,
        kills=8,
    ),
    Command("export --repair", ("export", NETWORK, "--int8", *FEW, "--out", OLD, *_SEARCH), _cold, kills=18),
    Command(
        "export lenet5",
        ("export", "lenet5", "--int8", *FEW, "--out", "fresh"),
        _cold,
        torch=True,
        kills=6,
    ),
    Command("build", ("build", NEW, "--target", "rtx", "--sm", "86"), _cold, kills=14),
    Command("validate", ("validate", NEW, "--validation-data", "digits", "--report", "r.json"), kills=12),
    Command("bench", ("bench", NEW, OLD, *_QUICK, "--layers", "--report", "r.md")),
    Command("calibrate", ("calibrate", NETWORK, "--folds", "2", *FEW[:2]), _cold, kills=14),
    Command(
        "diagnose",
        ("diagnose", NEW, "--model", NETWORK, "--images", "16", "--plot", "d.svg", "--report", "r.html"),
    ),
    Command("report", ("report", NEW, OLD, *(f"--out=r.{each}" for each in ("html", "json", "xml", "csv")))),
    Command("compare", ("compare", OLD, NEW, "--report", "c.md", "--report", "c.json")),
    Command("survey", ("survey", "--models", NETWORK, "--out", "fresh", *_SURVEYED), _cold, kills=8),
    Command("report --survey", ("report", "--survey", SURVEY, "--out", "s.html"), kills=4),
    Command("package --for triton", ("package", NEW, "--for", "triton"), refuses=True, kills=8),
    Command("package --for deepstream", ("package", NEW, "--for", "deepstream"), refuses=True, kills=6),
    Command("sign", ("sign", NEW, "--key", KEY), _signed),
    Command("bom", ("bom", NEW, "--modelpack", "pack")),
    Command("init", ("init", NETWORK, "--yes"), refuses=True, kills=6),
    Command(
        "doctor --proof",
        ("doctor", "--proof", "p.tar.gz", "--bundle", NEW, "--no-power", "--folder", "proof"),
        kills=6,
    ),
    Command("cache --prune", ("cache", "--prune", "0"), removes=True),
)


def make_world(network: Path, root: Path, *, survey: bool) -> None:
    """Make the files, by cnnx itself and without any fault.

    Args:
        network: ONNX file of a classifier of 32 x 32 gray images with ten classes.
        root: folder to make them in.
        survey: whether a survey is among them.
    """
    world = Sandbox(root)
    shutil.copyfile(network, world.root / "work" / NETWORK)
    _write_photos(world.root / "work" / PHOTOS)
    (world.root / "work" / KEY).write_bytes(_key())
    made = [
        ("export", NETWORK, "--fp16", *FEW, "--out", OLD),
        ("export", NETWORK, "--int8", *FEW, "--out", NEW),
        *([("survey", "--models", NETWORK, "--out", SURVEY, *_SURVEYED)] if survey else []),
    ]
    for arguments in made:
        ended = world.run(arguments)
        if ended.code not in (0, 6):
            raise RuntimeError(f"cnnx {' '.join(arguments)}: {ended.err}")
    plant_theses(world)


def plant_theses(sandbox: Sandbox) -> None:
    """Put a file of the user into each folder of `THESES`."""
    for place in THESES:
        (sandbox.root / place).mkdir(parents=True, exist_ok=True)
        (sandbox.root / place / "thesis.txt").write_text(_THESIS)


def theses_lost(sandbox: Sandbox) -> list[str]:
    """Files of the user that were changed or removed."""
    files = {place: sandbox.root / place / "thesis.txt" for place in THESES}
    return [
        f"{place}/thesis.txt"
        for place, file in files.items()
        if not file.is_file() or file.read_text() != _THESIS
    ]


def _write_photos(folder: Path) -> None:
    from cnnx.data.sets import open_images

    images = open_images("digits", size=32, color="gray", split="validation")
    for index in range(96):
        item = images[index]
        place = folder / str(item.label) / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        item.load().save(place)


def _key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
