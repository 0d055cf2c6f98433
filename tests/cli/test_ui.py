"""What a command shows of its progress."""

from __future__ import annotations

import threading
import time

from cnnx.cli.ui import Ui
from cnnx.pipeline.progress import Event


def test_nothing_moves_beside_what_is_timed(capsys):
    """A display drawn anew ten times a second takes the interpreter from what is timed."""
    ui, before = Ui(as_json=False), threading.active_count()
    ui.listen(Event("export"))
    assert threading.active_count() == before + 1
    ui.listen(Event("latency", 1, 100, timed=True))
    ui.listen(Event("latency", 50, 100, timed=True))
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # the thread of before sees that it is to end at its next turn
    assert threading.active_count() == before
    ui.listen(Event("latency", seconds=1.0))
    ui.stop()
    assert "latency" in capsys.readouterr().err
