"""How the images of a result were spread over the nodes of a fleet, and how far these nodes differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cnnx.schema import Count, Positive, Quantity


@dataclass(frozen=True, slots=True)
class NodeShare:
    """A node that ran images.

    Attributes:
        name: name of the node.
        cpu: model of its processor.
        threads: number of threads that a process may use there.
        versions: versions of cnnx, Python, and the packages that compute.
        images: what ran -> number of images.
    """

    name: str
    cpu: str
    threads: Count
    versions: Mapping[str, str]
    images: Mapping[str, Count]


@dataclass(frozen=True, slots=True)
class Sharding:
    """How images were spread over nodes.

    Attributes:
        nodes: nodes that ran images, by name.
        shard_images: images of each shard; the last may have fewer.
        batch: images of each run.
        threads: CPU threads of each run.
        differences: what ran -> largest difference between nodes on the first batch, which every node ran
            too: of logits, or of the largest |x| of a channel. 0 for equal nodes; None if values were
            finite on some nodes only.
    """

    nodes: tuple[NodeShare, ...]
    shard_images: Positive
    batch: Positive
    threads: Positive
    differences: Mapping[str, Quantity | None]

    @property
    def is_exact(self) -> bool:
        """Whether the nodes computed the first batch bit for bit alike."""
        return all(difference == 0 for difference in self.differences.values())
