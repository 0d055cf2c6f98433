"""The base class of results: each shows itself as its command prints it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from cnnx.report.table import Block


class Result(ABC):
    """A result that shows as tables in a Python prompt and in a notebook."""

    __slots__ = ()

    @abstractmethod
    def blocks(self, *, verbose: bool = False) -> Iterable[Block]:
        """The tables, facts and remarks that the command prints; `verbose` adds what --verbose adds."""

    def __repr__(self) -> str:
        from cnnx.report.terminal import as_text

        return as_text(self.blocks())

    def _repr_html_(self) -> str:
        from cnnx.report.notebook import as_html

        return as_html(self.blocks())
