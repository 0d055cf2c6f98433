"""Cuts an image set into shards, on the boundaries of the batches that one node would run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Some images of a set: those from `start` up to, but not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"images {self.start + 1:,} to {self.stop:,}"


def whole_batches(size: int, batch: int) -> int:
    """A shard's size, rounded up to whole batches."""
    return -(-size // batch) * batch


def shards_of(images: int, size: int, *, batch: int) -> tuple[Shard, ...]:
    """Shards of at most `size` images, rounded up to whole batches.

    Every image is thus run in the same batch as on one node: only the last batch of all may be smaller.
    """
    step = whole_batches(size, batch)
    return tuple(Shard(start, min(start + step, images)) for start in range(0, images, step))
