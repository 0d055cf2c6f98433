"""Work on several pictures at once, with results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

# Pillow and hashlib leave the interpreter free. Each worker may hold one picture of up to 200 MB.
_WORKERS = min(4, os.cpu_count() or 1)


def in_order(work: Callable[[_Given], _Made], items: Iterable[_Given]) -> Iterator[_Made]:
    """`map(work, items)` on a few threads, never more than a few items ahead of its reader."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending: deque[Future[_Made]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > _WORKERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # the reader has had enough
            for each in pending:
                each.cancel()
