"""Finding a network's tensors in whatever training code saved them with."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnx import models
from cnnx.errors import WeightsError
from cnnx.recipe import read_recipe
from cnnx.store.digests import digest_of_file
from cnnx.weights import Weights, classes_in, load_into

State = dict[str, torch.Tensor]


def lenet(classes: int = 10) -> nn.Module:
    return models.build("lenet5", classes=classes, arguments={})


def load(model: nn.Module, content: object, file: Path) -> tuple[str, ...]:
    torch.save(content, file)
    weights = Weights("file", "test", digest_of_file(file), file)
    return load_into(model, weights, read_recipe("lenet5"), batches_for_statistics=())


def same(model: nn.Module, state: State) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.pth"


LOSS = {"criterion.weight": torch.ones(10)}
OPTIONS = argparse.Namespace(lr=0.1, out=pathlib.PosixPath("out"))
DROPPED = "entries of the checkpoint outside {}* were dropped: {}"
WRAPPED: dict[str, tuple[Callable[[State], Any], tuple[str, ...]]] = {
    "DataParallel of torch.compile": (lambda s: under("module._orig_mod.", s), ()),
    "Lightning": (
        lambda s: {
            "epoch": 3,
            "pytorch-lightning_version": "2.6",
            "state_dict": under("model.", s) | LOSS,
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.ones(())}},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
            "hyper_parameters": {"lr": 0.1},
        },
        (DROPPED.format("model.", 1),),
    ),
    "a module in a module": (
        lambda s: {"state_dict": under("net.backbone.", s) | LOSS},
        (DROPPED.format("net.backbone.", 1),),
    ),
    "timm": (lambda s: {"arch": "lenet5", "args": OPTIONS, "state_dict": s, "metric": 0.9}, ()),
    "deep": (lambda s: {"checkpoint": {"student": {"weights": s}}}, ()),
    "averaged only": (
        lambda s: {"ema_state_dict": s},
        ("averaged weights were used, as there are no others: ema_state_dict",),
    ),
    "both": (
        lambda s: {"state_dict_ema": {n: t + 1 for n, t in s.items()}, "state_dict": s},
        ("averaged weights of the checkpoint were not used: state_dict_ema; to use them, save them alone",),
    ),
    "averaged beside": (
        lambda s: {"state_dict": under("model.", s) | under("model_ema.", {n: t + 1 for n, t in s.items()})},
        (
            DROPPED.format("model.", 10),
            "averaged weights of the checkpoint were not used: state_dict.model_ema; to use them, save them "
            "alone",
        ),
    ),
    "the same twice": (lambda s: {"state_dict": s, "best": s}, ()),
    "an averaged model": (
        lambda s: {"swa": under("module.", s) | {"n_averaged": torch.ones(())}},
        (
            DROPPED.format("module.", 1),
            "averaged weights were used, as there are no others: swa.module",
        ),
    ),
    "a head in a container": (
        lambda s: {n.replace("fc3", "fc3.1"): t for n, t in s.items()},
        ("fc3.1 of the checkpoint was loaded as fc3",),
    ),
}


@pytest.mark.parametrize("form", WRAPPED)
def test_the_networks_tensors_are_found(file: Path, form: str) -> None:
    wrap, notes = WRAPPED[form]
    state, model = lenet().state_dict(), lenet()
    assert load(model, wrap(state), file) == notes
    assert same(model, state)


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "two that fit": (
        lambda s: {"student": s, "teacher": {n: t + 1 for n, t in s.items()}},
        "several sets of weights that fit: student, teacher",
    ),
    "no tensors": (lambda s: {"epoch": 3, "args": OPTIONS}, "no tensors, only epoch, args"),
    "one missing": (
        lambda s: under("module.", {n: s[n] for n in s if n != "fc1.bias"}),
        "1 missing (fc1.bias",
    ),
    "one more": (lambda s: {"model": s | LOSS}, "1 unexpected (criterion.weight"),
    "two layers in a container": (
        lambda s: {n.replace("fc3", "fc3.1"): t for n, t in s.items()} | {"fc3.3.weight": torch.ones(3, 3)},
        "fc3.3.weight",
    ),
    "other widths": (
        lambda s: {n: t[: len(t) // 2] for n, t in s.items()},
        "does not fit the model: 10 with a different shape",
    ),
    "other counters": (lambda s: {n: t[0] for n, t in s.items()}, "10 with a different shape"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_not_the_networks_is_refused(file: Path, form: str) -> None:
    wrap, says = REFUSED[form]
    model = lenet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as refusal:
        load(model, wrap(lenet().state_dict()), file)
    assert says in str(refusal.value)
    assert same(model, before)


def build(name: str, classes: int) -> nn.Module:
    spec = read_recipe(name).model
    return models.build(spec.definition, classes=classes, arguments=spec.arguments)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("squeezenet1.1", {}),  # its classifier is a convolution
        ("googlenet-bn", {"aux1.fc2.weight": torch.ones(7, 1024)}),  # dropped
        ("small-levit", {}),  # two heads, each with a BatchNorm before it
    ],
)
def test_the_classes_are_those_of_the_head(file: Path, name: str, changed: State) -> None:
    torch.save({"state_dict": under("module.", build(name, 7).state_dict() | changed)}, file)
    assert classes_in(file, read_recipe(name), None) == 7


def test_background_rows_are_not_classes(file: Path) -> None:
    """1001 rows of inception-v4 are its 1000 classes; 8 are those of a fine-tuned one."""
    recipe = read_recipe("inception-v4")
    state = {n: torch.ones(()).expand(t.shape) for n, t in build("inception-v4", 1000).state_dict().items()}
    for rows, classes in ((1001, 1000), (8, 8)):
        head = {"last_linear.weight": torch.ones(rows, 1536), "last_linear.bias": torch.ones(rows)}
        torch.save(state | head, file)
        assert classes_in(file, recipe, None) == classes


def test_other_layers_are_not_heads(file: Path) -> None:
    """Another length of a hidden layer, or two lengths at once, is another network."""
    state = lenet().state_dict()
    for other in (
        {"conv1.bias": torch.ones(7)},
        {"fc3.weight": torch.ones(7, 84), "fc3.bias": torch.ones(8)},
    ):
        torch.save(state | other, file)
        assert classes_in(file, read_recipe("lenet5"), None) == 10
