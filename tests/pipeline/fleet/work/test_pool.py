"""Who does which job, and what happens when nodes are lost: with nodes that only pretend to work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnnx.errors import Unreachable
from cnnx.machine.environment import installed_version
from cnnx.pipeline.fleet.work.frames import Frame
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost
from cnnx.pipeline.fleet.work.line import LineLost
from cnnx.pipeline.fleet.work.pool import FleetPool, Place
from cnnx.pipeline.progress import NodeEvent, ProgressEvent, silent

FACTS = {"cpu": "imagined", "threads": 1, "versions": {"cnnx": installed_version("cnnx")}}


@dataclass
class Pretended:
    """Nodes whose jobs take moments. `dies` are the numbers of jobs, over all nodes, that kill their node."""

    devices: Mapping[str, Sequence[str]]
    dies: frozenset[int] = frozenset()
    takes_s: float = 0.001
    returns: bool = True
    began: list[tuple[str, str]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    head_is_down: bool = False
    disk_is_full: frozenset[str] = frozenset()

    async def places(self) -> Sequence[Place]:
        if self.head_is_down:
            raise Unreachable("the head is down", hint="start it")
        return [self._place(name) for name in self.devices if name not in self.gone]

    async def close(self) -> None:
        pass

    def _place(self, name: str) -> Place:
        device = next((each for each in self.devices[name] if each != EXPORT), "")

        async def reach() -> _Line:
            if name in self.gone:
                raise LineLost("no route to it")
            return _Line(self, name)

        return Place(name, device, reach)


class _Line:
    def __init__(self, nodes: Pretended, name: str) -> None:
        self._nodes, self._name = nodes, name

    async def ask(self, frame: Frame) -> AsyncIterator[Frame]:
        header: dict[str, Any] = {}
        if frame.header["do"] == "facts":
            header = {"facts": FACTS, "exports": EXPORT in self._nodes.devices[self._name]}
        elif frame.header["do"] == "missing":
            header = {"missing": []}
        else:
            header = await self._work(frame.header["arguments"]["number"])
        yield Frame({**header, "last": True})

    async def _work(self, number: int) -> dict[str, Any]:
        nodes, count = self._nodes, len(self._nodes.began)
        assert self._name not in nodes.running, "two jobs on one node"
        nodes.began.append((self._name, str(number)))
        nodes.running.add(self._name)
        try:
            await asyncio.sleep(nodes.takes_s)
            if count in nodes.dies:
                if not nodes.returns:
                    nodes.gone.add(self._name)
                raise LineLost("it was ended by SIGKILL")
        finally:
            nodes.running.remove(self._name)
        if self._name in nodes.disk_is_full:
            return {
                "error": {"what": "the disk is full", "where": None, "hint": "free it", "elsewhere": True}
            }
        return {"value": number, "files": {}}

    async def close(self) -> None:
        pass


def job(number: int, needs: str = "cpu", group: str = "") -> Job:
    return Job(f"job {number}", "survey", {"number": number}, needs, group=group)


def done_by(nodes: Pretended, jobs: Sequence[Job], **limits: float) -> dict[str, Answer | Lost]:
    with FleetPool(nodes, **limits) as pool:
        found = [(job.name, outcome) for job, outcome in pool.run(jobs, listener=silent)]
    assert len(found) == len({name for name, _ in found})
    return dict(found)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(jobs=st.integers(1, 25), count=st.integers(1, 4), dies=st.frozensets(st.integers(0, 30), max_size=3))
def test_each_job_has_one_outcome_and_is_lost_only_after_two_losses(
    jobs: int, count: int, dies: frozenset[int]
) -> None:
    nodes = Pretended({f"node{i}": ["cpu"] for i in range(count)}, dies=dies)
    found = done_by(nodes, [job(number) for number in range(jobs)])
    assert found.keys() == {f"job {number}" for number in range(jobs)}
    lost = [nodes.began[place][1] for place in dies if place < len(nodes.began)]
    for number in range(jobs):
        outcome = found[f"job {number}"]
        if isinstance(outcome, Answer):
            assert outcome.value == number
        assert isinstance(outcome, Lost) == (lost.count(str(number)) == 2)
        assert sum(name == str(number) for _, name in nodes.began) == lost.count(str(number)) + isinstance(
            outcome, Answer
        )


def test_a_lost_job_goes_to_another_node_and_says_where_it_was_lost() -> None:
    nodes = Pretended({"a": ["cpu"], "b": ["cpu"]}, dies=frozenset({0}))
    found = done_by(nodes, [job(0), job(1), job(2)])
    tried = [node for node, number in nodes.began if number == "0"]
    assert len(tried) == 2 and set(tried) == {"a", "b"}
    assert all(isinstance(each, Answer) for each in found.values())
    nodes = Pretended({"a": ["cpu"]}, dies=frozenset({0, 1}))
    outcome = done_by(nodes, [job(0)])["job 0"]
    assert isinstance(outcome, Lost)
    assert outcome.reason.count("a was lost: it was ended by SIGKILL") == 2


def test_what_one_node_lacks_another_may_have() -> None:
    nodes = Pretended({"a": ["cpu"], "b": ["cpu"]}, disk_is_full=frozenset({"a"}))
    found = done_by(nodes, [job(0), job(1), job(2)])
    assert all(isinstance(each, Answer) and each.node.name == "b" for each in found.values())
    nodes = Pretended({"a": ["cpu"]}, disk_is_full=frozenset({"a"}))
    assert done_by(nodes, [job(0)]) == {"job 0": Lost("the disk is full, on a", "free it", elsewhere=True)}


def test_jobs_go_where_their_device_is_and_export_where_pytorch_is() -> None:
    nodes = Pretended({"desk": [EXPORT], "nano": ["orin-nano"], "both": ["xavier", EXPORT]})
    jobs = [job(0, EXPORT), job(1, "orin-nano"), job(2, "xavier"), job(3, EXPORT)]
    done_by(nodes, jobs)
    by = {number: node for node, number in nodes.began}
    assert by["1"] == "nano" and by["2"] == "both" and {by["0"], by["3"]} <= {"desk", "both"}


def test_one_node_takes_the_jobs_of_a_group() -> None:
    """They share an engine, which each node would have to build."""
    nodes = Pretended({"a": ["cpu"], "b": ["cpu"]}, takes_s=0.02)
    done_by(nodes, [job(number, group=f"net{number % 2}") for number in range(10)])
    for parity in (0, 1):
        assert len({node for node, number in nodes.began if int(number) % 2 == parity}) == 1


def test_a_job_that_nobody_can_do_is_lost_after_a_while_and_the_others_are_done() -> None:
    nodes = Pretended({"a": ["cpu"]})
    found = done_by(nodes, [job(0, "orin-nano"), job(1)], patience_s=0.1)
    outcome = found["job 0"]
    assert isinstance(outcome, Lost) and "no node of the fleet offers orin-nano" in outcome.reason
    assert isinstance(found["job 1"], Answer)


def test_when_the_last_node_is_gone_its_jobs_say_so() -> None:
    nodes = Pretended({"a": ["cpu"]}, dies=frozenset({1}), returns=False)
    found = done_by(nodes, [job(0), job(1)], patience_s=0.1)
    assert isinstance(found["job 0"], Answer)
    outcome = found["job 1"]
    assert isinstance(outcome, Lost) and "SIGKILL" in outcome.reason


def test_a_job_beyond_its_limit_ends_its_worker_and_is_tried_elsewhere() -> None:
    nodes = Pretended({"a": ["cpu"], "b": ["cpu"]}, takes_s=30)
    outcome = done_by(nodes, [job(0)], limit_s=0.1)["job 0"]
    assert isinstance(outcome, Lost)
    assert outcome.reason.count("took longer than") == 2 and {node for node, _ in nodes.began} == {"a", "b"}


def test_a_head_that_stays_down_ends_the_run() -> None:
    nodes = Pretended({"a": ["cpu"]}, takes_s=30)
    told: list[ProgressEvent] = []

    def listen(event: ProgressEvent) -> None:
        told.append(event)
        if isinstance(event, NodeEvent) and event.state == "working":
            nodes.head_is_down = True

    with FleetPool(nodes, patience_s=0.1) as pool:
        try:
            list(pool.run([job(0)], listener=listen))
        except Unreachable as error:
            assert error.what == "the head is down"
        else:
            raise AssertionError("the run went on")


def test_jobs_can_be_added_and_progress_counts_them() -> None:
    nodes = Pretended({"a": ["cpu"]})
    told: list[NodeEvent] = []
    with FleetPool(nodes) as pool:
        for each, _ in pool.run([job(0)], listener=told.append):  # type: ignore[arg-type]
            if each.name == "job 0":
                pool.add([job(1), job(2)])
    assert (told[-1].state, told[-1].jobs_done, told[-1].jobs) == ("done", 3, 3)
    assert any(event.seconds_left is not None for event in told)
