"""Gives jobs to the nodes of a fleet: one at a time to each, elsewhere if a node is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from cnnx.errors import CnnxError, EnvironmentLacks, Unreachable
from cnnx.pipeline.fleet.work.frames import WAITING
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts
from cnnx.pipeline.fleet.work.line import Line, LineLost
from cnnx.pipeline.fleet.work.node import Node
from cnnx.pipeline.progress import Listener, NodeEvent, ProgressEvent, silent
from cnnx.store.files import scratch_folder

T = TypeVar("T")
Outcome = Answer | Lost

_TRIES = 2
_LOOK_S = 1.0
_LONGEST_WAIT_S = 30.0
_AGAIN = "run the same command again: what is done stays done"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is.

    Attributes:
        name: name of the node, unique within the fleet.
        device: name of its device; empty if it only exports.
        reach: opens a line to its worker; raises `LineLost` or `CnnxError`.
    """

    name: str
    device: str
    reach: Callable[[], Awaitable[Line]]


class Source(Protocol):
    """Knows where nodes are."""

    async def places(self) -> Sequence[Place]:
        """The places of the nodes that are up.

        Raises:
            Unreachable: nobody knows, as the cluster's head is down.
        """
        ...

    async def close(self) -> None:
        """End what reaches the nodes."""
        ...


@dataclass(slots=True, eq=False)
class _Todo:
    """A job that has no outcome yet: where it was lost, and since when nobody can do it."""

    job: Job
    lost: dict[str, str] = field(default_factory=dict)
    alone_since: float | None = None


class _Clock:
    """The time of a job, which begins again while it waits for a device."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._started = limit_s, time.monotonic()

    def restart(self) -> None:
        """Begin again."""
        self._started = time.monotonic()

    def seconds(self) -> float:
        """The time so far."""
        return time.monotonic() - self._started

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of work.

        Raises:
            TimeoutError: of asyncio: it takes longer than the limit.
        """
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=max(self._limit_s - self.seconds(), 0.001))
                if done:
                    return task.result()
                if self.seconds() >= self._limit_s:
                    raise asyncio.TimeoutError
        finally:
            task.cancel()


async def _nowhere() -> Line:
    raise LineLost("there is no such node")


class FleetPool:
    """The nodes of a fleet, as a context manager: they are free for others when it ends.

    Args:
        source: knows where nodes are.
        listener: receives what nodes do while they are sought.
        limit_s: longest time that a job may take; then its node counts as lost.
        patience_s: how long a job waits for a node that can do it, if there is none.
    """

    def __init__(
        self, source: Source, *, listener: Listener = silent, limit_s: float = 3600, patience_s: float = 60
    ) -> None:
        self._source, self._listener = source, listener
        self._limit_s, self._patience_s = limit_s, patience_s
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.ExitStack()
        self._scratch = self._stack.enter_context(scratch_folder())
        self._numbers = itertools.count()
        self._todo: list[_Todo] = []
        self._open_jobs = self._done_jobs = self._known_jobs = 0
        self._outcomes: asyncio.Queue[tuple[Job, Outcome] | None] = asyncio.Queue()
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, Place] = {}
        self._nodes: dict[str, Node] = {}
        self._faults: dict[str, str] = {}
        self._groups: dict[tuple[str, str], str] = {}
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> FleetPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()
            self._stack.close()

    def nodes(self) -> Sequence[NodeFacts]:
        """The nodes that can be reached, once each place has been tried or patience has ended.

        Raises:
            Unreachable: the head of the cluster cannot be reached.
            EnvironmentLacks: there is no node.
        """

        async def found() -> None:
            ends = time.monotonic() + self._patience_s
            while time.monotonic() < ends:
                tried = self._nodes.keys() | self._faults.keys()
                if (self._nodes and tried >= self._serving.keys()) or self._error:
                    return
                await asyncio.sleep(_LOOK_S / 10)

        self._run(found())
        self._raise_error()
        if not self._nodes:
            raise EnvironmentLacks(
                "; ".join(["no node of the fleet can be reached", *self._faults.values()]),
                hint="another run may hold them; cnnx fleet status lists the nodes, cnnx fleet join adds one",
            )
        return tuple(node.facts for node in self._nodes.values())

    def devices(self) -> Sequence[str]:
        """The names of all devices, also of those that cannot be reached now."""
        return sorted({place.device for place in self._places.values() if place.device})

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs while `run` goes on."""
        new = [_Todo(job) for job in jobs]
        self._todo += new
        self._open_jobs += len(new)
        self._known_jobs += len(new)
        self._news.set()

    def run(self, jobs: Iterable[Job], *, listener: Listener) -> Iterator[tuple[Job, Outcome]]:
        """Do jobs, and yield each with its outcome as soon as it has one.

        Raises:
            Unreachable: the head of the cluster cannot be reached any more.
        """
        self._listener = listener
        self.add(jobs)
        while self._open_jobs:
            found = self._run(self._outcomes.get())
            self._raise_error()
            assert found is not None
            self._open_jobs -= 1
            yield found
            if isinstance(found[1], Answer):
                shutil.rmtree(found[1].folder, ignore_errors=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._watching is None:
            self._watching = self._loop.create_task(self._watch())
            self._watching.add_done_callback(self._ended)
        return self._loop.run_until_complete(work)

    async def _end(self) -> None:
        tasks = [*self._serving.values(), *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._source.close()

    async def _watch(self) -> None:
        """Serve every node that comes, and give up jobs that nobody can do."""
        unknown_since: float | None = None
        while True:
            try:
                self._places = {place.name: place for place in await self._source.places()}
                unknown_since = None
            except Unreachable:
                unknown_since = unknown_since or time.monotonic()
                if not self._places or time.monotonic() - unknown_since > self._patience_s:
                    raise
                await asyncio.sleep(_LOOK_S)
                continue
            for name, place in self._places.items():
                if name not in self._serving:
                    self._serving[name] = asyncio.ensure_future(self._serve(place))
                    self._serving[name].add_done_callback(self._ended)
            for name in self._serving.keys() - self._places.keys() - self._nodes.keys():
                self._serving.pop(name).cancel()
            self._give_up()
            await asyncio.sleep(_LOOK_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Pass on an error for which nobody waits otherwise."""
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._error = error
            self._outcomes.put_nowait(None)

    def _raise_error(self) -> None:
        if self._error:
            raise self._error

    def _give_up(self) -> None:
        """End the jobs that no node can do, after a while."""
        now = time.monotonic()
        for todo in list(self._todo):
            if self._has_hope(todo.job.needs):
                todo.alone_since = None
                continue
            todo.alone_since = todo.alone_since or now
            if now - todo.alone_since > self._patience_s:
                self._todo.remove(todo)
                faults = "".join(f"; {each}" for each in (*todo.lost.values(), *self._faults.values()))
                hint = f"see cnnx fleet status; when a node has joined, {_AGAIN}"
                lost = Lost(f"no node of the fleet offers {todo.job.needs}{faults}", hint)
                self._end_job(todo.job, lost, Place("-", todo.job.needs, _nowhere))

    def _has_hope(self, needs: str) -> bool:
        """Whether a node can do what a job needs, or one that may is being reached, as one that is in use."""
        reached = (node.facts.offers for node in self._nodes.values())
        return any(needs in offers for offers in reached) or any(
            needs in (place.device, EXPORT) and name not in self._faults and name not in self._nodes
            for name, place in self._places.items()
        )

    async def _serve(self, place: Place) -> None:
        """Reach a node, give it jobs until it is lost, and try to reach it again."""
        for failures in itertools.count(1):
            place = self._places.get(place.name, place)  # its source may reach it in another way by now
            self._tell(place, "connecting")
            line: Line | None = None
            try:
                line = await place.reach()
                # Another run may hold it; what has hung, too, is given up at some time.
                opening = Node.open(line, name=place.name, device=place.device)
                node = await asyncio.wait_for(opening, self._limit_s)
                self._nodes[place.name] = node
                self._faults.pop(place.name, None)
                self._tell(place, "idle")
                await self._give_jobs(place, node)
            except (LineLost, CnnxError, asyncio.TimeoutError) as error:
                what = error.what if isinstance(error, CnnxError) else str(error) or "it does not answer"
                self._faults[place.name] = f"{place.name}: {what}"
                self._tell(place, "lost", ProgressEvent(what))
            finally:
                self._nodes.pop(place.name, None)
                if line is not None:
                    await line.close()
            await asyncio.sleep(min(_LOOK_S * failures, _LONGEST_WAIT_S))

    async def _give_jobs(self, place: Place, node: Node) -> None:
        """Give a node one job after another.

        Raises:
            LineLost: the node was lost. Its job is done elsewhere.
        """
        while True:
            todo = await self._next(place, node)
            clock = _Clock(self._limit_s)
            outcome = await self._outcome(todo, place, node, clock)
            self._seconds[todo.job.task].append(clock.seconds())
            if isinstance(outcome, Lost) and outcome.elsewhere and self._others_offer(todo.job.needs, place):
                self._retry(todo, place, f"cannot do it: {outcome.reason}")
                continue
            self._end_job(todo.job, outcome, place)

    async def _outcome(self, todo: _Todo, place: Place, node: Node, clock: _Clock) -> Outcome:
        """What a node makes of a job.

        Raises:
            LineLost: the node was lost. The job waits for another one, or has ended.
        """
        folder = self._new_folder()
        heard = partial(self._heard, place, todo.job, clock)
        heard(ProgressEvent(todo.job.task))
        outcome: Outcome | None = None
        try:
            outcome = await clock.within(node.run(todo.job, folder, heard))
        except asyncio.TimeoutError:
            self._retry(todo, place, f"took longer than {self._limit_s / 60:.0f} minutes")
            raise LineLost("it took too long, and is restarted") from None
        except LineLost as error:
            self._retry(todo, place, f"was lost: {error}")
            raise
        except OSError as error:
            file = f": {error.filename}" if error.filename else ""
            reason = f"a file of the job cannot be read: {error.strerror or error}{file}"
            outcome = Lost(reason, "check the file, and run again")
        except asyncio.CancelledError:
            self._todo.insert(0, todo)
            raise
        finally:
            if not isinstance(outcome, Answer):
                shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _heard(self, place: Place, job: Job, clock: _Clock, event: ProgressEvent) -> None:
        """Pass on the progress of a job."""
        if event.step == WAITING:
            clock.restart()
        usual = self._seconds[job.task]
        left = sum(usual) / len(usual) - clock.seconds() if usual else None
        self._tell(place, "working", event, job=job, left=left)

    async def _next(self, place: Place, node: Node) -> _Todo:
        """The next job that a node can do."""
        while True:
            mine = [each for each in self._todo if each.job.needs in node.facts.offers]
            if chosen := self._chosen(mine, place):
                self._todo.remove(chosen)
                self._groups.setdefault((chosen.job.needs, chosen.job.group), place.name)
                return chosen
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK_S)

    def _chosen(self, todo: Sequence[_Todo], place: Place) -> _Todo | None:
        """A job of a group that this node has begun, else of one that nobody has, else any.

        A job that was lost here goes to another node, if one can do it.
        """

        def preference(each: _Todo) -> int:
            owner = self._groups.get((each.job.needs, each.job.group))
            return 0 if owner == place.name else 1 if owner is None or owner not in self._nodes else 2

        fit = [
            each
            for each in todo
            if place.name not in each.lost or not self._others_offer(each.job.needs, place)
        ]
        return min(fit, key=preference, default=None)

    def _others_offer(self, needs: str, place: Place) -> bool:
        """Whether another node can do what a job needs."""
        others = (node for name, node in self._nodes.items() if name != place.name)
        return any(needs in node.facts.offers for node in others)

    def _retry(self, todo: _Todo, place: Place, reason: str) -> None:
        """Let a lost job be done again, unless it was lost twice."""
        lost_before = len(todo.lost)
        todo.lost[f"{place.name} {lost_before}" if place.name in todo.lost else place.name] = (
            f"{place.name} {reason}"
        )
        if len(todo.lost) < _TRIES:
            self._todo.insert(0, todo)
            self._news.set()
        else:
            reasons = "; ".join(todo.lost.values())
            hint = "the job may need more memory or time than these nodes have; see --limit, or " + _AGAIN
            self._end_job(todo.job, Lost(f"it was tried {_TRIES} times: {reasons}", hint), place)

    def _end_job(self, job: Job, outcome: Outcome, place: Place) -> None:
        self._done_jobs += 1
        self._outcomes.put_nowait((job, outcome))
        if isinstance(outcome, Lost):
            self._tell(place, "failed", ProgressEvent(outcome.reason), job=job)
        else:
            self._tell(place, "done", ProgressEvent(job.task), job=job)

    def _new_folder(self) -> Path:
        folder = self._scratch / str(next(self._numbers))
        folder.mkdir()
        return folder

    def _tell(
        self,
        place: Place,
        state: Literal["connecting", "idle", "working", "done", "failed", "lost"],
        event: ProgressEvent | None = None,
        *,
        job: Job | None = None,
        left: float | None = None,
    ) -> None:
        self._listener(
            NodeEvent(
                step=event.step if event else "",
                done=event.done if event else 0,
                total=event.total if event else 0,
                note=event.note if event else False,
                node=place.name,
                device=place.device,
                job=job.name if job else "",
                state=state,
                seconds_left=None if left is None else max(left, 0.0),
                jobs_done=self._done_jobs,
                jobs=self._known_jobs,
            )
        )
