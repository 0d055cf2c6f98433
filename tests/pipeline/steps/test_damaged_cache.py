"""A cache entry of any step that is damaged in any way is made again, and that is reported."""

import os
import shutil

import pytest

import cnnx
from cnnx.pipeline.export import export as exporting
from cnnx.runtimes import get

pytest.importorskip("torch", reason="exports need PyTorch")

# The file of each kind of step that what follows depends on most.
KINDS = {
    "crops": "crops.npy",
    "export": "model.onnx",
    "reference": "logits.npy",
    "floor": "logits.npy",
    "equalized": "model.onnx",
    "statistics": "statistics.npz",
    "calibration": "calibration.json",
    "graph": "layers.json",
    "choice": "candidates.json",
    "early-remedies": "remedies.json",
    "repair": "repair.json",
    "engine": "*/*.engine",
}


def flip(file):
    content = bytearray(file.read_bytes())
    content[-len(content) // 3] ^= 1
    file.write_bytes(content)


def replace_by_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_link(file):
    shutil.move(file, file.parent.parent / f"{file.name}.elsewhere")
    file.symlink_to(file.parent.parent / f"{file.name}.elsewhere")


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "emptied": lambda file: file.write_bytes(b""),
    "truncated": lambda file: os.truncate(file, file.stat().st_size - 1),
    "flipped": flip,
    "a folder": replace_by_folder,
    "a link": replace_by_link,
    "a file too many": lambda file: (file.parent / "built.json.bak").write_text("{}"),
    "no list": lambda file: next(
        file.parents[n] / "entry.json" for n in (0, 1) if (file.parents[n] / "entry.json").exists()
    ).write_bytes(b"\0" * 99),
}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Exports with every kind of step; returns the result and the notes that the listener received."""

    def run(out):
        said = []
        builder = {"target": "rtx", "sm": [86]} if get("rtx").missing() is None else {"target": "ort"}
        result = cnnx.export(
            "lenet5",
            precision="int8",
            method="auto",
            repair=True,
            calibration_images=16,
            validation_images=64,
            out=out,
            listener=lambda event: said.append(event.step) if event.note else None,
            **builder,
        )
        return result, said

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exporting, "_measure", lambda *_: ())
        yield run


@pytest.fixture(scope="module")
def whole(export, tmp_path_factory):
    """A cache with every kind of entry, and the result of an export from it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CNNX_CACHE", str(folder / "cache"))
        result, said = export(folder / "b")
    assert said == []
    return folder / "cache", result


def outcome(result):
    engines = [(engine.identity, engine.graph_digest) for engine in result.engines]
    return result.bundle.manifest, result.validation.verdict, result.validation.gates, engines


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_of_any_step_is_made_again(damage, export, whole, tmp_path, monkeypatch):
    cache, expected = whole
    monkeypatch.setenv("CNNX_CACHE", str(tmp_path / "cache"))
    shutil.copytree(cache, tmp_path / "cache")
    kinds = {path.name for path in cache.iterdir() if path.is_dir()} - {"locks"}
    assert kinds == set(KINDS) - ({"engine"} if get("rtx").missing() else set())
    for kind in sorted(kinds):
        files = list((tmp_path / "cache" / kind).glob(f"[!.]*/{KINDS[kind]}"))
        files = [file for file in files if ".kept-" not in str(file)]
        for file in files:
            DAMAGES[damage](file)
        result, said = export(tmp_path / kind)
        assert outcome(result) == outcome(expected), kind
        assert 1 <= len(set(said)) == len(said) <= len(files), (kind, said)
        assert all(f"The cached {kind} " in each and "damaged" in each for each in said), said
        assert all((result.bundle.engine_file(engine)).stat().st_size > 1000 for engine in result.engines)
    _, said = export(tmp_path / "again")
    assert said == []
