"""Jobs of a fleet, their outcomes, and the pool of nodes that does them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cnnx.pipeline.fleet.cluster.names import EXPORT as EXPORT
from cnnx.pipeline.progress import Listener


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one node.

    Attributes:
        name: name for people, such as "resnet20, batch 8".
        task: module in `cnnx.pipeline.fleet.tasks`.
        arguments: plain data for the task.
        files: name -> file on this machine. A node gets each content once.
        needs: what a node must offer: the name of a device, such as "orin-nano", or `EXPORT`.
        group: jobs of one group share work, such as the engine of one bundle, so one node takes them all if
            it can.
        stays: whether the files stay laid out on the node, with what is built beside them.
    """

    name: str
    task: str
    arguments: Mapping[str, Any]
    needs: str
    files: Mapping[str, Path] = field(default_factory=dict)
    group: str = ""
    stays: bool = False


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node, and what its results may depend on.

    Attributes:
        name: name of the node, unique within the fleet.
        offers: what jobs may need of it: the name of a device, `EXPORT`, or both.
        cpu: model of its processor.
        threads: number of threads that a process may use.
        versions: versions of cnnx, Python, and the packages that compute.
    """

    name: str
    offers: tuple[str, ...]
    cpu: str
    threads: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node made of a job.

    Attributes:
        value: plain data that the task returned.
        folder: the files that it wrote; they are there until the next outcome is taken.
        node: the node that did it.
        seconds: how long it took, with files.
    """

    value: Any
    folder: Path
    node: NodeFacts
    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a job has no answer.

    Attributes:
        reason: what went wrong, and where.
        hint: what to do about it.
        elsewhere: whether another node may do it, as this one lacks something, such as disk space.
    """

    reason: str
    hint: str
    elsewhere: bool = False


class Pool(Protocol):
    """Nodes that do jobs."""

    def nodes(self) -> Sequence[NodeFacts]:
        """The nodes that can be reached now."""
        ...

    def devices(self) -> Sequence[str]:
        """The names of all devices, also of those that cannot be reached now."""
        ...

    def run(self, jobs: Iterable[Job], *, listener: Listener) -> Iterator[tuple[Job, Answer | Lost]]:
        """Do jobs, and yield each with its outcome as soon as it has one."""
        ...

    def add(self, jobs: Iterable[Job]) -> None:
        """Add jobs while `run` goes on."""
        ...
