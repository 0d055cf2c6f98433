"""A data set that changes while an export reads it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tools.check.faults.calls import Fault, Mode
from tools.check.faults.judge import Files, badly_ended, files_in
from tools.check.faults.sandbox import Sandbox
from tools.check.faults.trials import Record, spread
from tools.check.faults.world import NETWORK, PHOTOS

_OUT = "fresh"
_VERDICT = ("fresh/model.onnx", "fresh/calibration.json", "fresh/reference.npz")
# The export reads both sets by these names, as a bundle states them.
_CALIBRATION, _VALIDATION = "calibration", "validation"
_EXPORT = (
    *("export", NETWORK, "--int8", "--out", _OUT, "--calibration-images", "24", "--validation-images", "48"),
    *("--calibration-data", f"{_CALIBRATION}/{PHOTOS}", "--validation-data", f"{_VALIDATION}/{PHOTOS}"),
)


def _in_order(photos: Path, index: int) -> Path:
    from cnnx.data.folders import open_folder

    return photos / open_folder(photos, labels=None, classes=None)[index].id


def _one(photos: Path) -> Path:
    """One of the validation images, which some time passes between hashing and decoding."""
    return _in_order(photos, 40)


def _other(photos: Path) -> Path:
    return _in_order(photos, 90)


def _removed(photos: Path) -> None:
    _one(photos).unlink()


def _replaced(photos: Path) -> None:
    """By a rename, as an editor or rsync does it."""
    shutil.copyfile(_other(photos), photos / ".new")
    (photos / ".new").replace(_one(photos))


def _overwritten(photos: Path) -> None:
    """In place, with its name, inode and time."""
    file, content = _one(photos), _other(photos).read_bytes()
    found = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def _truncated(photos: Path) -> None:
    os.truncate(_one(photos), _one(photos).stat().st_size // 2)


def _added(photos: Path) -> None:
    content, folder = _other(photos).read_bytes(), _one(photos).parent
    for number in range(8):
        (folder / f"added-{number}.png").write_bytes(content)


def _all_replaced(photos: Path) -> None:
    """Contents move on by one name, so that content and label of all change."""
    files = sorted(photos.rglob("*.png"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)


def _all_removed(photos: Path) -> None:
    shutil.rmtree(photos)


CHANGES: Mapping[str, Callable[[Path], None]] = {
    "removed": _removed,
    "replaced": _replaced,
    "overwritten": _overwritten,
    "truncated": _truncated,
    "added": _added,
    "all replaced": _all_replaced,
    "all removed": _all_removed,
}


def _lead(sandbox: Sandbox, calibration: str, validation: str) -> None:
    """Let the names of both sets lead to folders in the working folder."""
    for name, to in ((_CALIBRATION, calibration), (_VALIDATION, validation)):
        (sandbox.root / "work" / name).unlink(missing_ok=True)
        (sandbox.root / "work" / name).symlink_to(to)


def changes(world: Sandbox, folder: Path, name: str, times: int) -> Iterator[Record]:
    """Stop an export at a call that reads the images, change them, and let it go on.

    Its bundle must be that of the images as they were, as they are, or of calibration and validation images
    on either side of the change; or it is refused. Whatever it leaves in the cache must not change what later
    exports make of the images as they were, or as they are.
    """
    change = CHANGES[name]
    allowed = _undisturbed(world, folder, change)
    read = (f"work/{_CALIBRATION}", f"work/{_VALIDATION}")
    sandbox = world.copy(folder)
    _lead(sandbox, ".", ".")
    counted = sandbox.run(_EXPORT, Fault(below=read, reads=True))
    for at in spread(times, len(counted.calls)):
        sandbox = world.copy(folder)
        _lead(sandbox, ".", ".")
        running = sandbox.start(_EXPORT, Fault(Mode.SEND, at, signal.SIGSTOP, below=read, reads=True))
        if running.stopped():
            change(sandbox.root / "work" / PHOTOS)
            running.go_on()
        ended = running.wait()
        wrong, became = badly_ended(ended), _bundle(sandbox)
        if ended.code in (0, 1, 6) and became not in allowed.values():
            wrong.append("a bundle of images that never were together")
        wrong += _later(sandbox, world, allowed)
        outcome = next((key for key, each in allowed.items() if each == became), "refused")
        sandbox.remove()
        said = ended.err.strip()[-400:]
        yield {"at": at, "exit": ended.code, "state": outcome, "said": said, "wrong": wrong}


def _later(sandbox: Sandbox, world: Sandbox, allowed: Mapping[str, Files | None]) -> Iterator[str]:
    """What later exports with the same cache make of the images as they are, and as they were."""
    photos = sandbox.root / "work" / PHOTOS
    for key in ("after", "before"):
        if key == "before":
            shutil.rmtree(photos, ignore_errors=True)
            shutil.copytree(world.root / "work" / PHOTOS, photos)
        shutil.rmtree(sandbox.root / "work" / _OUT, ignore_errors=True)
        sandbox.run(_EXPORT)
        if _bundle(sandbox) != allowed[key]:
            yield f"a later export of the images as {key} the change gives another bundle"


def _undisturbed(world: Sandbox, folder: Path, change: Callable[[Path], None]) -> dict[str, Files | None]:
    """Bundles of the images before and after the change, for calibration and validation alike or not."""
    sandbox = world.copy(folder)
    work = sandbox.root / "work"
    for name in ("before", "after"):
        (work / name).mkdir()
        shutil.copytree(work / PHOTOS, work / name / PHOTOS)
    change(work / "after" / PHOTOS)
    found = {}
    for calibration, validation in itertools.product(("before", "after"), repeat=2):
        shutil.rmtree(work / _OUT, ignore_errors=True)
        _lead(sandbox, calibration, validation)
        sandbox.run(_EXPORT)
        found[calibration if calibration == validation else f"calibrated {calibration}"] = _bundle(sandbox)
    sandbox.remove()
    return found


def _bundle(sandbox: Sandbox) -> Files | None:
    """What an export makes of its images, without the names of those that it skipped as they had vanished."""
    manifest = sandbox.root / "work" / _OUT / "manifest.json"
    files = files_in(sandbox.root / "work")
    if not manifest.is_file():
        return None
    stated = json.loads(manifest.read_text(encoding="utf-8"))
    for told in ("seal", "notes"):
        stated.pop(told, None)
    for images in stated["images"].values():
        images.pop("skipped", None)
    kept = {name: files[name] for name in _VERDICT if name in files}
    return kept | {f"{_OUT}/manifest.json": frozenset({(json.dumps(stated, sort_keys=True), "whole")})}
