"""A pool whose nodes are this process: it runs the real tasks, in any order, and can lose jobs.

As the pool of `cnnx.pipeline.fleet.work`: a job goes to a node that offers what it needs; arguments and
values are plain JSON data; files are copies under their names; an answer's files are there until the next
outcome is taken; a task's `CnnxError` loses the job.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from cnnx.errors import CnnxError
from cnnx.pipeline.fleet.tasks import inside, task_named
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts
from cnnx.pipeline.plain import plain
from cnnx.pipeline.progress import Listener

VERSIONS = {"cnnx": "0.2", "onnxruntime": "1.31.1", "python": "3.10.12"}


def node(name: str, *offers: str, cpu: str = "a CPU", **versions: str) -> NodeFacts:
    """Facts of a node."""
    return NodeFacts(name, offers, cpu, 2, {**VERSIONS, **versions})


class InProcessPool:
    """Nodes by their facts.

    Args:
        nodes: the nodes.
        seed: of the order in which jobs are done, and of the node that does each.
        loses: whether a job is lost.
        rounds_up: names of nodes whose results are one unit in the last place too large.
        spoils: changes an answer, in place, before it is given.

    Attributes:
        done: the jobs that were done, with the node of each.
    """

    def __init__(
        self,
        *nodes: NodeFacts,
        seed: int = 0,
        loses: Callable[[Job], bool] = lambda _: False,
        rounds_up: Sequence[str] = (),
        spoils: Callable[[Job, Answer], None] = lambda _job, _answer: None,
    ) -> None:
        self._nodes, self._random = nodes, random.Random(seed)
        self._loses, self._rounds_up, self._spoils = loses, rounds_up, spoils
        self._todo: list[Job] = []
        self.done: list[tuple[Job, str]] = []

    def nodes(self) -> Sequence[NodeFacts]:
        return self._nodes

    def devices(self) -> Sequence[str]:
        return sorted({each for node in self._nodes for each in node.offers if each != EXPORT})

    def add(self, jobs: Iterable[Job]) -> None:
        self._todo += jobs

    def run(self, jobs: Iterable[Job], *, listener: Listener) -> Iterator[tuple[Job, Answer | Lost]]:
        self.add(jobs)
        while self._todo:
            job = self._todo.pop(self._random.randrange(len(self._todo)))
            able = [each for each in self._nodes if job.needs in each.offers]
            if not able:
                yield job, Lost(f"no node of the fleet offers {job.needs}", "join one")
                continue
            chosen = self._random.choice(able).name
            if self._loses(job):
                yield job, Lost(f"{chosen} was lost", "run the same command again")
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    answer = self._answer(job, chosen, Path(folder), listener)
                except CnnxError as error:
                    yield job, Lost(f"{error.what}, on {chosen}", error.hint or "")
                    continue
                self._spoils(job, answer)
                self.done.append((job, chosen))
                yield job, answer

    def _answer(self, job: Job, chosen: str, folder: Path, listener: Listener) -> Answer:
        files, out = folder / "files", folder / "out"
        out.mkdir()
        for name, path in job.files.items():
            place = inside(files, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        arguments = json.loads(json.dumps(job.arguments))
        value = plain(task_named(job.task)(arguments, files, out, listener=listener))
        if chosen in self._rounds_up:
            for file in out.rglob("*.np[yz]"):
                _round_up(file)
        by_name = {each.name: each for each in self._nodes}
        return Answer(value, out, by_name[chosen], 0.1)


def _round_up(file: Path) -> None:
    """Make logits, or the largest values of channels, one unit in the last place larger."""
    found = np.load(file)
    if file.suffix == ".npy":
        np.save(file, np.nextafter(found, np.float32(np.inf)))
        return
    arrays = dict(found)
    arrays["highest"] = np.nextafter(arrays["highest"], np.float32(np.inf))
    np.savez_compressed(file, **arrays)


ALIKE = (node("a", "orin-nano"), node("b", "orin-nano"), node("c", EXPORT), node("d", "orin-nano", EXPORT))
"""Four equal nodes: three devices, two with PyTorch."""
