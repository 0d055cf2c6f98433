"""The base class of results: each shows itself as its command prints it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from cnnx.report.table import Block
from cnnx.stats import Verdict, worst


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


class JudgedResult(Result):
    """The result of a command that judges a bundle that it has made."""

    __slots__ = ()

    @property
    @abstractmethod
    def verdicts(self) -> tuple[Verdict, ...]:
        """The overall verdict, and that of each gate."""

    @property
    def decided(self) -> tuple[Verdict, ...]:
        """The verdicts without "not judged", as of stand-in weights."""
        return tuple(each for each in self.verdicts if each is not Verdict.NOT_JUDGED)

    @property
    def exit_code(self) -> int:
        """1 if a gate failed, 6 if one is inconclusive, else 0, also if not judged."""
        return worst(self.decided).exit_code
