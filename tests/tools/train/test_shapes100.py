"""Training on shapes100, in miniature: a stopped run goes on as if it had not stopped."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from cnnx.recipe import read_recipe

torch = pytest.importorskip("torch", reason="training needs PyTorch")
training = importlib.import_module("tools.train.shapes100")


@pytest.fixture(autouse=True)
def miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DRAWN_AT_ONCE", 128)
    monkeypatch.setattr(training, "EVERY", 1)


def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, settings = read_recipe("small-mobilenet"), training.Settings(images=384, batch=64)
    whole = training.train(recipe, settings, checkpoint=tmp_path / "whole.pt")
    assert [entry["images"] for entry in whole.log] == [128, 256, 384]

    def stopped(run: Any, *rest: object) -> float:
        if run.part == 2:
            raise KeyboardInterrupt
        return learn(run, *rest)

    learn = training.learn
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "learn", stopped)
        training.train(recipe, settings, checkpoint=tmp_path / "stopped.pt")
    assert not (tmp_path / "stopped.part").exists()
    continued = training.train(recipe, settings, checkpoint=tmp_path / "stopped.pt")
    assert continued.log == whole.log
    state = continued.network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in whole.network.state_dict().items())


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    recipe = read_recipe("small-mobilenet")
    training.train(recipe, training.Settings(images=128), checkpoint=tmp_path / "run.pt")
    with pytest.raises(SystemExit, match="different settings"):
        training.train(recipe, training.Settings(images=256), checkpoint=tmp_path / "run.pt")


def test_a_run_of_another_seed_ships_nothing_and_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "AGAIN", tmp_path / "again.json")
    monkeypatch.setattr(training, "LENGTHS", {**training.LENGTHS, "validation": 64})
    shipped = []
    monkeypatch.setattr(training, "ship", lambda name, *_, **__: shipped.append(name) or tmp_path / name)
    recipe = read_recipe("small-mobilenet")
    for seed in (102, 101, 102, 100):
        settings = training.Settings(images=128, seed=seed)
        run = training.train(recipe, settings, checkpoint=tmp_path / f"{seed}.pt")
        training.finish(recipe, settings, run)
    assert shipped == ["small-mobilenet"]  # seed 100, the usual one
    kept = json.loads((tmp_path / "again.json").read_text())
    assert [(one["seed"], one["of"], one["settings"]["images"]) for one in kept] == [
        (101, 64, 128),
        (102, 64, 128),
    ]
    assert all(0 <= one["right"] <= 64 for one in kept)
