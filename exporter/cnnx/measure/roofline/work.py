"""What each layer of an engine computes and moves: MACs, bytes, and the type it multiplies in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cnnx.runtimes.kernels import WEIGHTS, Kernel, Tensor, owners, type_in

if TYPE_CHECKING:
    from cnnx.graph.inspect import Layer

_IMAGES = 4  # dimensions of a batch of feature maps: images, channels, height, width
_FOREIGN = "ForeignNode"  # a part of the network that TensorRT reports as one layer, without its nodes

_Size = TypeVar("_Size", int, "int | None")


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Work of one layer of an engine for one batch.

    Attributes:
        type: type that it multiplies in, "tf32" for FP32 data on tensor cores; empty if it does not multiply,
            or if the type is unknown.
        macs: MACs; None if unknown.
        weight_bytes: constants, read once a batch; None if unknown.
        data_bytes: input and output tensors, without padding; None if unknown.
        nodes: nodes of the graph whose multiplications it does.
    """

    type: str
    macs: int | None
    weight_bytes: int | None
    data_bytes: int | None
    nodes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int | None:
        """All bytes that it moves at least; None if unknown."""
        if self.weight_bytes is None or self.data_bytes is None:
            return None
        return self.weight_bytes + self.data_bytes


@dataclass(frozen=True, slots=True)
class Network:
    """What is known of the graph that an engine was built from.

    Attributes:
        layers: node -> its layer.
        depthwise: depthwise convolutions.
        reasons: node -> reason for its precision.
        precision: precision of the graph; empty if there is none at hand.
        pixels: whether its input is pixels (uint8).
        own_scales: whether its scales are those of the user's file.
        floating_sums: whether the recipe keeps shortcuts out of INT8.
    """

    layers: Mapping[str, Layer] = field(default_factory=dict)
    depthwise: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    precision: str = ""
    pixels: bool = False
    own_scales: bool = False
    floating_sums: bool = False


def work_of(
    kernels: Sequence[Kernel], network: Network, *, batch: int, inspected: int = 0
) -> dict[str, LayerWork]:
    """Work of each kernel by its name.

    MACs are those of the graph's nodes, given to the kernel that does their multiplications. Without
    the graph they follow from a convolution's output and the number of its weights.

    Args:
        kernels: what the builder reported.
        network: the graph; empty if it is not at hand.
        batch: images of the measured run.
        inspected: images that the builder reported shapes for; 0: the same.
    """
    owned: dict[str, list[Layer]] = {}
    for node, kernel in owners(kernels, network.layers).items():
        owned.setdefault(kernel.name, []).append(network.layers[node])
    sizes = _Sizes(batch, inspected or batch)
    return {kernel.name: _work(kernel, owned.get(kernel.name, ()), sizes) for kernel in kernels}


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Sizes of tensors for the measured batch, from those that the builder reported for another."""

    batch: int
    inspected: int

    def moved(self, kernel: Kernel) -> int | None:
        """Bytes that a kernel reads and writes, each tensor once; None if one is unknown."""
        tensors = dict.fromkeys((*kernel.reads, *kernel.writes))
        sizes = [self._scaled(tensor, tensor.nbytes(self.batch)) for tensor in tensors]
        if not kernel.writes or None in sizes:
            return None
        skipped = (1 - kernel.touched) * (sizes[0] or 0) if kernel.reads else 0
        return round(sum(size for size in sizes if size is not None) - skipped)

    def positions(self, tensor: Tensor) -> int:
        """Positions of all feature maps of a batch."""
        return self._scaled(tensor, tensor.values(self.batch)) // tensor.shape[1]

    def _scaled(self, tensor: Tensor, size: _Size) -> _Size:
        return size if size is None or tensor.is_free else size * self.batch // self.inspected


def _work(kernel: Kernel, rows: Sequence[Layer], sizes: _Sizes) -> LayerWork:
    if kernel.kind.lower() == "noop":
        return LayerWork("", 0, 0, 0)
    products = tuple(row for row in rows if row.multiply_adds)
    macs: int | None = sum(row.multiply_adds for row in products) * sizes.batch
    if not macs and (kernel.multiplies or _FOREIGN in kernel.name):
        macs = _counted(kernel, sizes)
    held = [tensor.nbytes() for tensor in kernel.holds]
    weights: int | None = None if None in held else sum(size or 0 for size in held)
    if not weights:
        # TensorRT does not report the weights of some fused kernels, such as ConvActPool.
        weights = sum(row.weight_bytes for row in rows) if rows or not kernel.multiplies else None
    return LayerWork(
        _type(kernel, products) if macs != 0 else "",
        macs,
        weights,
        sizes.moved(kernel),
        tuple(row.name for row in products),
    )


def _counted(kernel: Kernel, sizes: _Sizes) -> int | None:
    """MACs of a convolution, from its weights and output; None if these are not reported.

    Each weight is multiplied once for each position of the output: a weight belongs to one output channel.
    """
    weights = next((tensor.values() for tensor in kernel.holds if tensor.name == WEIGHTS), 0)
    shape = kernel.writes[0].shape if kernel.writes else ()
    if not weights or len(shape) != _IMAGES or shape[1] < 1:
        return None
    return weights * sizes.positions(kernel.writes[0])


def _type(kernel: Kernel, products: Sequence[Layer]) -> str:
    node = next((row.name for row in products if row.name in kernel.layers), next(iter(kernel.layers), ""))
    found = (type_in(node, kernel) if node else None) or ""
    return "tf32" if found == "fp32" and "tf32" in kernel.tactic else found
