"""Answers for shards, kept in the cache until the whole is done, so that a run that was stopped continues."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnx.errors import EnvironmentLacks
from cnnx.pipeline.fleet.work.job import Answer, NodeFacts
from cnnx.store.cache import Partial, Store
from cnnx.store.own_code import own_code

SAME_VERSION = "install the same version of cnnx on every machine of the fleet"
"""Hint for an answer that cannot be read."""
_NODE = "node.json"
_BY_NAME = ("cnnx.runtimes", "cnnx.models")
"""For `own_code`: what tasks load by name."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a node made of a shard.

    Attributes:
        files: relative name -> content.
        node: the node.
    """

    files: Mapping[str, bytes]
    node: NodeFacts

    @classmethod
    def of(cls, answer: Answer, node: NodeFacts) -> Part:
        """Read an answer's files, which do not stay."""
        folder = answer.folder
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}, node)

    def file(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            EnvironmentLacks: the node has not written it.
        """
        if name not in self.files:
            raise unreadable(self.node.name, f"{name} is missing")
        return self.files[name]


def unreadable(where: str, why: str) -> EnvironmentLacks:
    """The error for an answer that is not what the task gives; `where`: the node, or its device."""
    return EnvironmentLacks(
        f"the answer of a node cannot be read: {why}",
        where=where,
        hint=SAME_VERSION,
    )


class KeptParts:
    """The parts of one run.

    They are state of a run and no results: they are removed once the result is written, as what is judged
    again is run again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._used: list[Partial] = []

    def load(self, inputs: Mapping[str, Any]) -> Part | None:
        """The part with these inputs, if an earlier run has it and was stopped."""
        content = self._place(inputs).load()
        if content is None:
            return None
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        facts = json.loads(files.pop(_NODE))
        return Part(files, NodeFacts(**{**facts, "offers": tuple(facts["offers"])}))

    def save(self, inputs: Mapping[str, Any], part: Part) -> None:
        """Keep a part.

        Raises:
            WriteFailed: the cache cannot be written.
        """
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(_NODE, json.dumps(dataclasses.asdict(part.node)))
            for name, data in part.files.items():
                archive.writestr(name, data)

        def write(path: Path) -> None:
            path.write_bytes(content.getbuffer())

        self._place(inputs).save(write)

    def remove(self) -> None:
        """Remove all parts that this run has looked for."""
        for partial in self._used:
            partial.remove()
        self._used.clear()

    def _place(self, inputs: Mapping[str, Any]) -> Partial:
        task = f"cnnx.pipeline.fleet.tasks.{inputs['task']}"
        place = self._store.partial("shards", {**inputs, "code": own_code(__name__, task, *_BY_NAME)})
        if place not in self._used:
            self._used.append(place)
        return place
