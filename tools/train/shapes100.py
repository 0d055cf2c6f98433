"""Train a shipped network on `shapes100`, and test it once on the validation images.

`python -m tools.train.shapes100 resnet20` (several names train in turn, no name trains all) writes
recipes/weights/<name>-<start of its SHA-256>.safetensors and prints the lines to set in the recipe. Each
training image is generated once and used once. A run that was stopped resumes from build/training/<name>.pt,
which is written about every minute. Selection images show the progress; validation images are read once, at
the end.

The same seed gives the same images in the same order on every machine. A run repeats exactly on the same
processor with the same number of threads. Otherwise sums round differently, and the result varies as much as
with a different seed. To measure that, --seed trains with other initial weights in another order, ships
nothing, and stores the accuracy in tools/train/trained_again.json (docs/trained.md).

With --bfloat16, matrix products run in bfloat16: 1.5 to 1.8 times as fast on a CPU that supports it (not for
depthwise convolutions), slower on others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnx import models
from cnnx.data.builtin.shapes100 import LENGTHS, VERSION, draw_batch
from cnnx.data.images import Split
from cnnx.data.normalize import normalize
from cnnx.machine.environment import cpu_model
from cnnx.recipe import Recipe, read_recipe
from cnnx.resources import shared_folder
from tools import ROOT
from tools.train.shipping import report, ship

CHECKPOINTS = ROOT / "build" / "training"
AGAIN = Path(__file__).with_name("trained_again.json")
DRAWN_AT_ONCE = 2048  # divisible by the batch; also the unit of shuffling
EVERY = 10  # parts between two log lines, and between two checkpoints


@dataclass(frozen=True, slots=True)
class Settings:
    """Training settings: SGD with a one-cycle learning rate (Smith, 2018)."""

    images: int = 512_000
    seed: int = 100
    batch: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    warm_up: float = 0.2
    bfloat16: bool = False


USUAL = {
    "resnet20": Settings(),
    "plain20": Settings(),
    "densenet22-12": Settings(images=256_000),
    "small-vgg-bn": Settings(images=307_200),
    "small-googlenet-bn": Settings(),
    "small-mobilenet": Settings(images=307_200),
    "small-levit": Settings(images=768_000),
}
"""On two cores of an AMD EPYC with bfloat16, small-levit took 26 minutes next to other work. 80,000 of its
images on an idle machine took 1/620 s each, which would give 21 minutes."""


@dataclass(slots=True)
class Run:
    """The state of a training run, as stored in a checkpoint."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    part: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)

    def state(self, settings: Settings) -> dict[str, Any]:
        """The state as plain data."""
        return {
            "settings": asdict(settings),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "part": self.part,
            "seconds": self.seconds,
            "log": self.log,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.part, self.seconds, self.log = state["part"], state["seconds"], state["log"]


def begin(recipe: Recipe, settings: Settings) -> Run:
    """A new run, with PyTorch's initial weights for the seed."""
    torch.manual_seed(settings.seed)
    model = recipe.model
    network = models.build(model.definition, classes=model.classes, arguments=model.arguments).train()
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        settings.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.learning_rate,
        total_steps=settings.images // settings.batch,
        pct_start=settings.warm_up,
        cycle_momentum=False,
    )
    return Run(network, optimizer, schedule)


def drawn(recipe: Recipe, split: Split, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Inputs (count, 3, H, W) as the recipe prepares them, and labels (count,)."""
    indices = np.arange(start, start + count)
    pixels, labels = draw_batch(
        split, indices, size=recipe.input.shape[1], color=recipe.preprocessing.drawn_in
    )
    inputs = torch.from_numpy(normalize(pixels, recipe.preprocessing))
    return inputs.to(memory_format=torch.channels_last), torch.from_numpy(labels)


def learn(run: Run, inputs: Tensor, labels: Tensor, settings: Settings) -> float:
    """Train on one part in shuffled order; returns the mean loss."""
    total = 0.0
    shuffle = torch.Generator().manual_seed(settings.seed << 20 | run.part)
    for chosen in torch.split(torch.randperm(len(inputs), generator=shuffle), settings.batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            logits = run.network(inputs[chosen])
        # LeViT has two heads in training; both learn from the labels.
        heads = logits if isinstance(logits, tuple) else (logits,)
        loss = torch.stack([functional.cross_entropy(head.float(), labels[chosen]) for head in heads]).mean()
        run.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.schedule.step()
        total += loss.item() * len(chosen)
    return total / len(inputs)


def count_right(network: nn.Module, recipe: Recipe, split: Split, count: int) -> int:
    """Number of images, among the first of a split, whose top-1 class in FP32 is the label."""
    network.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, count, 500):
            inputs, labels = drawn(recipe, split, start, min(500, count - start))
            right += int((network(inputs).argmax(dim=1) == labels).sum())
    network.train()
    return right


def train(recipe: Recipe, settings: Settings, *, checkpoint: Path) -> Run:
    """Train on all parts, resuming from a checkpoint with the same settings."""
    run = begin(recipe, settings)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["settings"] != asdict(settings):
            raise SystemExit(f"{checkpoint} has different settings: remove it, or use the same settings")
        run.restore(state)
        print(f"resuming after {run.part * DRAWN_AT_ONCE} images", flush=True)
    parts = settings.images // DRAWN_AT_ONCE

    def draw(part: int) -> Future[tuple[Tensor, Tensor]]:
        return pool.submit(drawn, recipe, "train", part * DRAWN_AT_ONCE, DRAWN_AT_ONCE)

    with ThreadPoolExecutor(1) as pool:
        ahead = {run.part: draw(run.part)} if run.part < parts else {}
        while run.part < parts:
            began = time.monotonic()
            inputs, labels = ahead.pop(run.part).result()
            if run.part + 1 < parts:
                ahead[run.part + 1] = draw(run.part + 1)
            loss = learn(run, inputs, labels, settings)
            run.part += 1
            run.seconds += time.monotonic() - began
            if run.part % EVERY == 0 or run.part == parts:
                note(run, recipe, loss, parts)
                save_whole(run.state(settings), checkpoint)
    return run


def note(run: Run, recipe: Recipe, loss: float, parts: int) -> None:
    """Log a line with the accuracy on the first thousand selection images."""
    top1 = count_right(run.network, recipe, "selection", 1000) / 1000
    left = run.seconds / run.part * (parts - run.part)
    run.log.append({"images": run.part * DRAWN_AT_ONCE, "loss": round(loss, 4), "selection_top1": top1})
    print(
        f"{run.part * DRAWN_AT_ONCE:8,d} images  loss {loss:.3f}  selection {top1:.1%}  "
        f"{run.seconds / 60:.1f} min, {left / 60:.1f} left",
        flush=True,
    )


def save_whole(state: dict[str, Any], file: Path) -> None:
    """Write a checkpoint atomically: to a draft, which is then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file.with_suffix(".part"))
    file.with_suffix(".part").rename(file)


def finish(recipe: Recipe, settings: Settings, run: Run) -> None:
    """Test the network and write its weights; for a different seed, store only the accuracy."""
    right, n = count_right(run.network, recipe, "validation", LENGTHS["validation"]), LENGTHS["validation"]
    accuracy = report(f"{recipe.name}, validation", right, n)
    made = {
        "by": "cnnx, tools/train/shapes100.py",
        "command": " ".join(["python -m tools.train.shapes100", *sys.argv[1:]]),
        "data": f"{settings.images} training images of `shapes100`, generator {VERSION}, each once",
        "settings": asdict(settings),
        "validation": accuracy,
        "minutes": round(run.seconds / 60, 1),
        "machine": f"{torch.get_num_threads()} of {os.cpu_count()} cores, {cpu_model()}",
        "torch": torch.__version__,
        "log": run.log,
    }
    if settings.seed != USUAL[recipe.name].seed:
        del made["log"]
        keep_again({"name": recipe.name, "seed": settings.seed, "right": right, "of": n, **made})
        return
    state = {name: tensor.contiguous() for name, tensor in run.network.state_dict().items()}
    file = ship(recipe.name, state, made, folder=shared_folder("recipes") / "weights")
    print(
        f'in {recipe.name}.toml:\n[weights]\nfile = "{file.name}"\ntop1 = {100 * right / n:.2f}\n', flush=True
    )


def keep_again(run: dict[str, Any]) -> None:
    """Store a run next to those with other seeds; replaces one with the same seed."""
    runs = json.loads(AGAIN.read_text()) if AGAIN.exists() else []
    others = [one for one in runs if (one["name"], one["seed"]) != (run["name"], run["seed"])]
    kept = sorted([*others, run], key=lambda one: (one["name"], one["seed"]))
    AGAIN.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"stored in {AGAIN.name}; its weights are not shipped", flush=True)


def main() -> None:
    """Train, test and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(USUAL)}")
    parser.add_argument("--images", type=int, help="number of training images; default: by network")
    parser.add_argument("--seed", type=int, help="different seed; the run is not shipped")
    parser.add_argument("--bfloat16", action="store_true", help="matrix products in bfloat16")
    parser.add_argument("--threads", type=int, help="number of cores to use; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(USUAL):
        parser.error(f"not trained here: {', '.join(sorted(unknown))}; known: {', '.join(USUAL)}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in arguments.names or USUAL:
        asked = arguments.images or USUAL[name].images
        if not DRAWN_AT_ONCE <= asked <= LENGTHS["train"]:
            parser.error(f"--images takes {DRAWN_AT_ONCE} to {LENGTHS['train']}")
        recipe = read_recipe(name)
        whole = asked // DRAWN_AT_ONCE * DRAWN_AT_ONCE
        seed = USUAL[name].seed if arguments.seed is None else arguments.seed
        settings = replace(USUAL[name], images=whole, seed=seed, bfloat16=arguments.bfloat16)
        finish(recipe, settings, train(recipe, settings, checkpoint=CHECKPOINTS / f"{name}.pt"))


if __name__ == "__main__":
    main()
