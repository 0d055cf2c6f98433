"""Train the LeNet-5 that ships, on training digits only, and test it once on held-out digits.

`python -m tools.train.lenet5` writes recipes/weights/lenet5-<start of its SHA-256>.safetensors and
prints the lines to set in recipes/lenet5.toml. Half a minute on two cores. The settings were checked by
`--folds 5`, cross-validation inside the training digits; the held-out ones took no part in that.
The same seed gives the same weights on one machine with one PyTorch version; elsewhere, equivalent weights.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnx.data.images import Split
from cnnx.data.normalize import normalize
from cnnx.models.lenet import lenet5
from cnnx.recipe import Recipe, parse_recipe
from cnnx.resources import shared_folder
from tools.crops import crops_of
from tools.train.shipping import report, ship


@dataclass(frozen=True, slots=True)
class Settings:
    """Training settings. Lengths are in pixels of the 32 x 32 input."""

    seed: int = 1998
    epochs: int = 100
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    rotation_degrees: float = 12.0
    scale: float = 0.1
    shift: float = 2.0


def read_digits(recipe: Recipe, split: Split) -> tuple[Tensor, Tensor]:
    """Inputs (N, 1, 32, 32) as the recipe prepares them, and labels (N,)."""
    pixels, labels = crops_of(recipe, "digits", split)
    return torch.from_numpy(normalize(pixels, recipe.preprocessing)), torch.from_numpy(labels)


def augment(images: Tensor, settings: Settings) -> Tensor:
    """Rotate, scale and shift each image slightly; new pixels are background."""
    count, side = len(images), images.shape[-1]

    def jitter(reach: float) -> Tensor:
        return (torch.rand(count) * 2 - 1) * reach

    angle = jitter(np.deg2rad(settings.rotation_degrees))
    zoom = 1 + jitter(settings.scale)
    shift = jitter(2 * settings.shift / side), jitter(2 * settings.shift / side)
    rows = [
        torch.stack([angle.cos() * zoom, -angle.sin() * zoom, shift[0]], dim=1),
        torch.stack([angle.sin() * zoom, angle.cos() * zoom, shift[1]], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    paper = images.min()
    return functional.grid_sample(images - paper, grid, align_corners=False) + paper


def train(images: Tensor, labels: Tensor, settings: Settings, *, classes: int) -> nn.Module:
    """Train a LeNet-5 for all epochs, without early stopping or selection."""
    torch.manual_seed(settings.seed)
    network = lenet5(classes=classes).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = settings.epochs * -(-len(images) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps)
    for epoch in range(settings.epochs):
        total = 0.0
        for chosen in torch.split(torch.randperm(len(images)), settings.batch):
            logits = network(augment(images[chosen], settings))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        if (epoch + 1) % 25 == 0:
            print(f"epoch {epoch + 1:4d}  loss {total / len(images):.4f}", flush=True)
    return network.eval()


def count_right(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Number of images whose top-1 class is the label."""
    with torch.no_grad():
        return int((network(images).argmax(dim=1) == labels).sum())


def cross_validate(images: Tensor, labels: Tensor, settings: Settings, *, classes: int, folds: int) -> None:
    """Print the cross-validated accuracy on the training digits."""
    part = torch.arange(len(images)) % folds
    right = 0
    for fold in range(folds):
        network = train(images[part != fold], labels[part != fold], settings, classes=classes)
        right += count_right(network, images[part == fold], labels[part == fold])
    report("cross-validated", right, len(images))


def main() -> None:
    """Train, test and write; or cross-validate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folds", type=int, default=0, help="cross-validate with this many folds; write nothing"
    )
    parser.add_argument("--epochs", type=int, default=Settings().epochs, help="passes over the digits")
    arguments = parser.parse_args()
    where = shared_folder("recipes") / "lenet5.toml"
    recipe = parse_recipe(where.read_text(encoding="utf-8"), where=where)
    settings = Settings(epochs=arguments.epochs)
    images, labels = read_digits(recipe, "calibration")
    classes = recipe.model.classes
    if arguments.folds:
        cross_validate(images, labels, settings, classes=classes, folds=arguments.folds)
        return
    network = train(images, labels, settings, classes=classes)
    held_out, truth = read_digits(recipe, "validation")
    right = count_right(network, held_out, truth)
    accuracy = report("held out", right, len(truth))
    made = {
        "by": "cnnx, tools/train/lenet5.py",
        "data": "997 training digits of the set `digits` (UCI, E. Alpaydin and C. Kaynak, CC BY 4.0)",
        "settings": asdict(settings),
        "held_out": accuracy,
        "torch": torch.__version__,
    }
    file = ship("lenet5", network.state_dict(), made, folder=where.parent / "weights")
    print(f'\nin {where.name}:\n[weights]\nfile = "{file.name}"\ntop1 = {100 * right / len(truth):.2f}')


if __name__ == "__main__":
    main()
