"""Processes several images in parallel and returns the results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")

# Pillow and hashlib release the GIL. Each worker may hold one image of up to 200 MB.
_WORKERS = min(4, os.cpu_count() or 1)


def in_order(work: Callable[[_Given], _Made], items: Iterable[_Given]) -> Iterator[_Made]:
    """Yield `map(work, items)`, computed on a few threads, at most a few items ahead of the consumer."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending: deque[Future[_Made]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > _WORKERS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # the consumer may stop early
            for each in pending:
                each.cancel()
