"""Shows what the nodes of a fleet do: a live table, lines in a log, or JSON lines."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import NodeEvent
from cnnx.report.terminal import escape

_REDRAWS_PER_S = 2
_LOGGED_S = 60.0
_HEADS = ("node", "device", "job", "step", "done", "time left")


class NodeDisplay:
    """Shows events of nodes on standard error.

    On a terminal a table has one line for each node. Elsewhere a line is written when a job ends or a node
    comes or goes, and once a minute how far the fleet is. With `as_json`, each event is a JSON object on a
    line of its own.
    """

    def __init__(self, out: Console, *, as_json: bool) -> None:
        self._out, self._as_json = out, as_json
        self._last: dict[str, NodeEvent] = {}
        self._said_lost: dict[str, str] = {}
        self._live: Live | None = None
        self._started = self._logged = time.monotonic()

    def show(self, event: NodeEvent) -> None:
        """Take the next event."""
        before = self._last.get(event.node)
        self._last[event.node] = event
        if self._as_json:
            self._out.file.write(json.dumps({"event": plain(event)}) + "\n")
        elif self._out.is_terminal:
            self._draw()
        else:
            self._log(event, before)

    def stop(self) -> None:
        """Remove the table."""
        if self._live:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._out,
                transient=True,
                refresh_per_second=_REDRAWS_PER_S,
                get_renderable=self._table,
            )
            self._live.start()

    def _table(self) -> Table:
        newest = max(list(self._last.values()), key=lambda event: event.jobs_done)
        table = Table(
            title=f"{newest.jobs_done} of {newest.jobs} jobs{self._left(newest)}", title_justify="left"
        )
        for head in _HEADS:
            table.add_column(head, justify="right" if head == "time left" else "left")
        for name in sorted(self._last):
            event = self._last[name]
            step = event.step if event.state == "working" else event.state
            done = f"{event.done} of {event.total}" if event.total else ""
            left = "" if event.seconds_left is None else _duration(event.seconds_left)
            row: tuple[Any, ...] = (name, event.device, event.job, step, done, left)
            table.add_row(*map(escape, row))
        return table

    def _log(self, event: NodeEvent, before: NodeEvent | None) -> None:
        far = f"{event.jobs_done} of {event.jobs} jobs{self._left(event)}"
        if event.state == "done":
            self._say(f"{event.node}: {event.job} done ({far})")
        elif event.state == "lost":
            if self._said_lost.get(event.node) == event.step:
                return  # a node that stays away is tried again and again
            self._said_lost[event.node] = event.step
            self._say(f"{event.node}: {event.step}; retrying")
        elif event.state == "failed":
            self._say(f"{event.job} on {event.device} failed: {event.step} ({far})")
        elif event.note:
            self._say(f"{event.node}: {event.job}: {event.step}")
        elif event.state == "idle" and (before is None or before.state == "connecting"):
            self._said_lost.pop(event.node, None)
            self._say(f"{event.node}: ready{f' as {event.device}' if event.device else ''}")
        elif time.monotonic() - self._logged > _LOGGED_S:
            self._say(far)

    def _say(self, text: str) -> None:
        self._logged = time.monotonic()
        self._out.print(f"  {escape(text)}", soft_wrap=True)

    def _left(self, event: NodeEvent) -> str:
        """Estimate for the whole, once some jobs are done."""
        if not event.jobs_done or event.jobs_done == event.jobs:
            return ""
        spent = time.monotonic() - self._started
        return f", about {_duration(spent / event.jobs_done * (event.jobs - event.jobs_done))} left"


def _duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
