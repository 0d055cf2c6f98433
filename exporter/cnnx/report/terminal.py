"""Draws tables, facts and remarks on a terminal. Only this module escapes Rich markup."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table as Drawn

from cnnx.report.table import Block, Facts, Remark, Table, Tone
from cnnx.report.words import visible


def escape(text: str) -> str:
    """Text whose markup and control characters do nothing: they are shown as escapes such as \\x1b."""
    return escape_markup(visible(text))


_COLORS: dict[Tone, str] = {"good": "green", "bad": "red", "open": "yellow"}


def as_text(blocks: Iterable[Block], *, width: int = 110) -> str:
    """Blocks as plain text, at most `width` characters wide."""
    out = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with out.capture() as captured:
        draw(out, blocks)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def draw(out: Console, blocks: Iterable[Block]) -> None:
    """Draw blocks below each other."""
    for block in blocks:
        if isinstance(block, Table):
            fitting = _fitting(out, block)
            out.print(_drawn(fitting))
            if left_out := [each.heading for each in block.columns if each not in fitting.columns]:
                out.print(
                    escape(f"Columns hidden (terminal too narrow): {', '.join(left_out)}."),
                    style="dim",
                    soft_wrap=True,
                )
            draw(out, block.remarks)
        elif isinstance(block, Facts):
            grid = Drawn.grid(padding=(0, 2))
            for name, value in block.rows:
                grid.add_row(f"[bold]{escape(name)}[/]", escape(value))
            out.print(grid)
        else:
            _print_remark(out, block)


def _print_remark(out: Console, remark: Remark) -> None:
    label = f"{_colored(f'{remark.label}:', remark.tone)} " if remark.label else ""
    text = escape(remark.text) if remark.label else _colored(remark.text, remark.tone)
    out.print(f"{label}{text}", soft_wrap=True)
    if remark.hint:
        out.print(f"  hint:  {escape(remark.hint)}", soft_wrap=True)


def _fitting(out: Console, table: Table) -> Table:
    """The table with as many columns as fit."""
    first = min((column.drop for column in table.columns if column.drop), default=0)
    if first and out.measure(_drawn(table), options=out.options.update(max_width=1000)).maximum > out.width:
        return _fitting(out, table.without(lambda column: column.drop == first))
    return table


def _drawn(table: Table) -> Drawn:
    drawn = Drawn(title=escape(table.title), title_justify="left", title_style="bold", header_style="bold")
    for column in table.columns:
        drawn.add_column(
            escape(column.heading),
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=column.fixed,
        )
    for group in table.groups:
        for row in group:
            drawn.add_row(*(_colored(cell.text, cell.tone) for cell in row))
        if table.lined:
            drawn.add_section()
    return drawn


def _colored(text: str, tone: Tone | None) -> str:
    return f"[{_COLORS[tone]}]{escape(text)}[/]" if tone else escape(text)
