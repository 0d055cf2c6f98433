"""Runs the shards of an image set on the nodes of a pool, and compares the nodes by a common batch."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnx.agreement.sharding import NodeShare, Sharding
from cnnx.errors import UsageError
from cnnx.machine.environment import usable_cores
from cnnx.options.fleet import ShardOptions
from cnnx.pipeline.fleet.shards.cuts import Shard, shards_of, whole_batches
from cnnx.pipeline.fleet.shards.kept import KeptParts, Part
from cnnx.pipeline.fleet.shards.parts import FILES, PROBE, SHARD
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts, Pool
from cnnx.pipeline.progress import Listener, Progress
from cnnx.store.cache import Store
from cnnx.store.digests import digest_of_file
from cnnx.store.files import scratch_folder

# Shards beside those that nodes work on: their pixels wait on this machine's disk, ready to be sent.
_WAITING = 4


@dataclass(frozen=True, slots=True)
class LostJob:
    """A job that no node could do."""

    job: str
    reason: str
    hint: str


class JobsLost(Exception):
    """Jobs that no node could do, so there is no result. What others have done is kept."""

    def __init__(self, lost: Sequence[LostJob]) -> None:
        super().__init__(", ".join(each.job for each in lost))
        self.lost = tuple(lost)


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with each shard.

    Attributes:
        name: what runs, for people and for `Sharding`: "original", "floor", "subject" or "statistics".
        task: task that does it.
        arguments: plain data for the task, beside the threads.
        files: files for the task, beside the shard and the probe.
        needs: what a node must offer.
        read: reads a file of the answer, by its name and number of images, and raises `EnvironmentLacks` if
            it is not what the task gives. What it reads for the probe is compared between nodes.
        file: name of the file that the task writes for the shard, and for the probe.
    """

    name: str
    task: str
    arguments: Mapping[str, Any]
    files: Mapping[str, Path]
    needs: str
    read: Callable[[Part, str, int], NDArray[np.float32]]
    file: str

    def of_probe(self, part: Part, images: int) -> NDArray[np.float32]:
        """What is compared between nodes."""
        return self.read(part, f"{PROBE}/{self.file}", images)

    def check(self, part: Part, shard: Shard, *, probe: int) -> None:
        """Raise if an answer is not what the task gives; `probe`: its number of images.

        Raises:
            EnvironmentLacks: it is not.
        """
        self.of_probe(part, probe)
        self.read(part, f"{SHARD}/{self.file}", len(shard))


class Fleet:
    """The nodes that do the jobs of one command, and what they have done.

    Args:
        pool: the nodes.
        options: size of the shards, and threads.
        store: where parts are kept.
        listener: receives the progress of nodes.
    """

    def __init__(self, pool: Pool, options: ShardOptions, *, store: Store, listener: Listener) -> None:
        self.threads = options.threads or usable_cores()
        self._pool, self._listener = pool, listener
        self._size = options.shard_images
        self._kept = KeptParts(store)
        self._facts = {node.name: node for node in pool.nodes()}
        self._batch = self._shard_images = 0
        self._images: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        self._shares: dict[tuple[str, str], NodeFacts] = {}
        self._differences: dict[str, float | None] = {}

    def offering(self, needs: str) -> tuple[NodeFacts, ...]:
        """The nodes that offer something, by name."""
        nodes = sorted(self._facts.values(), key=lambda node: node.name)
        return tuple(node for node in nodes if needs in node.offers)

    def device(self, wanted: str | None) -> str:
        """The device whose nodes run a subject: the one that is asked for, or that of all nodes.

        Raises:
            UsageError: no node has it, or there are several.
        """
        offered = sorted({offer for node in self._facts.values() for offer in node.offers} - {EXPORT})
        if wanted is not None and not self.offering(wanted):
            raise UsageError(
                f"no node of the fleet offers {wanted}",
                hint=f"choose one of: {', '.join(offered or [EXPORT])}; or see cnnx fleet status",
            )
        if wanted is None and len(offered) > 1:
            raise UsageError(
                f"the fleet has several devices: {', '.join(offered)}",
                hint=f"name the one that runs the images, such as --on {offered[0]}",
            )
        return wanted or (offered[0] if offered else EXPORT)

    def one(self, job: Job) -> Iterator[Answer]:
        """Do one job, and yield its answer; its files do not stay.

        Raises:
            JobsLost: no node could do it.
        """
        for _, outcome in self._pool.run([job], listener=self._listener):
            if isinstance(outcome, Lost):
                raise JobsLost([LostJob(job.name, outcome.reason, outcome.hint)])
            yield outcome

    def run(
        self, work: Work, pixels: NDArray[np.uint8], *, batch: int, progress: Progress
    ) -> tuple[tuple[Shard, Part], ...]:
        """Do the same work with every shard; parts that an earlier run has are used.

        Args:
            work: what is done.
            pixels: all images, (N, H, W, C).
            batch: images of each run, on whose boundaries shards are cut.
            progress: called with (images done, images in all).

        Returns:
            the shards with their parts, in the order of the images.

        Raises:
            JobsLost: no node could do some of them. The other parts are kept.
            EnvironmentLacks: an answer cannot be read. It is not kept, so that the next run asks again.
        """
        shards = shards_of(len(pixels), self._size, batch=batch)
        self._batch, self._shard_images = batch, whole_batches(self._size, batch)
        common = {
            "task": work.task,
            "arguments": {**work.arguments, "threads": self.threads},
            "files": {name: digest_of_file(path) for name, path in work.files.items()},
            "needs": work.needs,
            "probe": _digest(pixels[:batch]),
        }
        inputs = {shard: {**common, "pixels": _digest(pixels[shard.start : shard.stop])} for shard in shards}
        parts = {shard: part for shard in shards if (part := self._kept.load(inputs[shard]))}
        lost: list[LostJob] = []
        progress(sum(map(len, parts)), len(pixels))
        todo = [shard for shard in shards if shard not in parts]
        for shard, outcome in self._outcomes(work, todo, pixels, batch):
            if isinstance(outcome, LostJob):
                lost.append(outcome)
                continue
            work.check(outcome, shard, probe=len(pixels[:batch]))
            self._kept.save(inputs[shard], outcome)
            parts[shard] = outcome
            progress(sum(map(len, parts)), len(pixels))
        if lost:
            raise JobsLost(lost)
        distinct = {part.file(f"{PROBE}/{work.file}"): part for part in parts.values()}
        probes = [work.of_probe(part, len(pixels[:batch])) for part in distinct.values()]
        found, before = largest_difference(probes), self._differences.get(work.name, 0.0)
        self._differences[work.name] = None if found is None or before is None else max(found, before)
        for shard in shards:
            self._count(work.name, parts[shard].node, len(shard))
        return tuple((shard, parts[shard]) for shard in shards)

    def sharding(self) -> Sharding | None:
        """How images were spread so far, and the nodes compared; None if no image ran."""
        if not self._differences:
            return None
        nodes = tuple(
            NodeShare(node.name, node.cpu, node.threads, dict(node.versions), self._images[key])
            for key, node in sorted(self._shares.items())
        )
        return Sharding(nodes, self._shard_images, self._batch, self.threads, dict(self._differences))

    def forget(self) -> None:
        """Remove the parts, as the result is written."""
        self._kept.remove()

    def _count(self, name: str, node: NodeFacts, images: int) -> None:
        # A node that came back with other packages is another one.
        key = (node.name, repr(sorted(node.versions.items())))
        self._shares[key] = node
        self._images[key][name] = self._images[key].get(name, 0) + images

    def _outcomes(
        self, work: Work, shards: Sequence[Shard], pixels: NDArray[np.uint8], batch: int
    ) -> Iterator[tuple[Shard, Part | LostJob]]:
        """Give shards to nodes, a few at a time, as their pixels take space on the disk."""
        if not shards:
            return
        with scratch_folder() as scratch:
            probe = scratch / FILES[PROBE]
            _save(probe, pixels[:batch])
            by_name: dict[str, tuple[Shard, Path]] = {}

            def job_of(shard: Shard) -> Job:
                file = scratch / f"{shard.start}.npy"
                _save(file, pixels[shard.start : shard.stop])
                job = Job(
                    name=f"{shard}, {work.name}",
                    task=work.task,
                    arguments={**work.arguments, "threads": self.threads},
                    needs=work.needs,
                    files={**work.files, FILES[SHARD]: file, FILES[PROBE]: probe},
                )
                by_name[job.name] = (shard, file)
                return job

            waiting = iter(shards)
            at_once = 2 * len(self.offering(work.needs)) + _WAITING
            first = [job_of(shard) for shard in islice(waiting, at_once)]
            for job, outcome in self._pool.run(first, listener=self._listener):
                shard, file = by_name[job.name]
                if isinstance(outcome, Lost):
                    yield shard, LostJob(job.name, outcome.reason, outcome.hint)
                else:
                    yield shard, Part.of(outcome, outcome.node)
                file.unlink()
                if (following := next(waiting, None)) is not None:
                    self._pool.add([job_of(following)])


def largest_difference(values: Sequence[NDArray[np.float32]]) -> float | None:
    """Largest difference of any value between any two arrays; None if only some are finite there."""
    finite = [np.isfinite(each) for each in values]
    if any(not np.array_equal(each, finite[0]) for each in finite):
        return None
    known = [each[finite[0]].astype(np.float64) for each in values]
    gaps = np.max(known, axis=0) - np.min(known, axis=0)
    return float(gaps.max(initial=0))


def facts_of(nodes: Sequence[NodeFacts]) -> list[dict[str, Any]]:
    """What the results of nodes depend on, each once, in an order of its own."""
    plain = [dataclasses.asdict(node) for node in nodes]
    kinds = {repr(each): each for each in ({"cpu": one["cpu"], "versions": one["versions"]} for one in plain)}
    return [kinds[key] for key in sorted(kinds)]


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an array; as in `write_logits`, not by NumPy, whose error on a full disk has no errno."""
    content = io.BytesIO()
    np.save(content, pixels)
    file.write_bytes(content.getbuffer())


def _digest(pixels: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
