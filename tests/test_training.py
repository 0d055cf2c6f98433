"""Training on shapes100, in miniature: a stopped run goes on as if it had not stopped."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from cnnx.recipe import read_recipe

torch = pytest.importorskip("torch", reason="training needs PyTorch")
training = importlib.import_module("train_shapes100")


@pytest.fixture(autouse=True)
def miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DRAWN_AT_ONCE", 128)
    monkeypatch.setattr(training, "EVERY", 1)


def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, settings = read_recipe("small-mobilenet"), training.Settings(pictures=384, batch=64)
    whole = training.train(recipe, settings, checkpoint=tmp_path / "whole.pt")
    assert [entry["pictures"] for entry in whole.log] == [128, 256, 384]

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
    training.train(recipe, training.Settings(pictures=128), checkpoint=tmp_path / "run.pt")
    with pytest.raises(SystemExit, match="other settings"):
        training.train(recipe, training.Settings(pictures=256), checkpoint=tmp_path / "run.pt")
