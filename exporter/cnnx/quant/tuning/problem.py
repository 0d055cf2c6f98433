"""What a search chooses from: sites that may carry Q/DQ, and links between neighbors.

Sites of one kind (the same layer in repeated blocks) have one latency coefficient, as have links of one kind.
So a repeated block is measured once, while its accuracy is still judged site by site.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Site:
    """A layer or a shortcut that may carry Q/DQ.

    Attributes:
        name: name of the node.
        kind: index of its kind; sites of one kind are assumed to cost the same.
        share: its share of the work of all sites, 0..1; only a first guess of what INT8 saves there.
    """

    name: str
    kind: int
    share: float


@dataclass(frozen=True, slots=True)
class Link:
    """Two sites, by index, whose Q/DQ act on each other: neighbors, or those with one input.

    Attributes:
        kind: index of its kind; links of one kind are assumed to cost the same.
    """

    one: int
    other: int
    kind: int


class Problem:
    """Sites and links as arrays. A placement is a boolean array (n,): which sites carry Q/DQ.

    Args:
        sites: all sites.
        links: pairs of sites; latency may depend on whether both carry Q/DQ.
    """

    def __init__(self, sites: Sequence[Site], links: Iterable[Link] = ()) -> None:
        self.sites = tuple(sites)
        self.links = tuple(links)
        n, self.kinds = len(self.sites), 1 + max((site.kind for site in self.sites), default=-1)
        self.link_kinds = 1 + max((link.kind for link in self.links), default=-1)
        self._kind = np.array([site.kind for site in self.sites], np.intp)
        self._ends = np.array([(link.one, link.other) for link in self.links], np.intp).reshape(-1, 2)
        self._link_kind = np.array([link.kind for link in self.links], np.intp)
        self.names = tuple(site.name for site in self.sites)
        self._index = {name: index for index, name in enumerate(self.names)}
        self.neighbors: tuple[frozenset[int], ...] = tuple(
            frozenset(b for link in self.links for a, b in _both(link) if a == index) for index in range(n)
        )

    def placement(self, names: Iterable[str]) -> Bools:
        """The placement with Q/DQ at these sites."""
        found = np.zeros(len(self.sites), np.bool_)
        found[[self._index[name] for name in names]] = True
        return found

    def names_of(self, placement: Bools) -> frozenset[str]:
        """Names of the sites that carry Q/DQ."""
        return frozenset(name for name, chosen in zip(self.names, placement, strict=True) if chosen)

    def features(self, placement: Bools) -> Floats:
        """(kinds + link kinds,): number of sites with Q/DQ by kind, and of links with it at both ends."""
        counts = np.bincount(self._kind, weights=placement, minlength=self.kinds)
        both = placement[self._ends].all(axis=1) if len(self._ends) else np.zeros(0)
        pairs = np.bincount(self._link_kind, weights=both, minlength=self.link_kinds)
        return np.concatenate([counts, pairs])

    def per_site(self, coefficients: Floats) -> tuple[Floats, Floats]:
        """Coefficients of `features` as those of sites, (n,), and of pairs, symmetric (n, n)."""
        n = len(self.sites)
        pairs = np.zeros((n, n))
        for (one, other), value in zip(self._ends, coefficients[self.kinds :][self._link_kind], strict=True):
            pairs[one, other] += value
            pairs[other, one] += value
        return coefficients[: self.kinds][self._kind], pairs

    def shares(self) -> Floats:
        """Mean share of the work of a site of each kind, (kinds,)."""
        counts = np.bincount(self._kind, minlength=self.kinds)
        sums = np.bincount(self._kind, weights=[site.share for site in self.sites], minlength=self.kinds)
        return np.asarray(sums / np.maximum(counts, 1), np.float64)


def _both(link: Link) -> tuple[tuple[int, int], tuple[int, int]]:
    return (link.one, link.other), (link.other, link.one)
