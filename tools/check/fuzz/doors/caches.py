"""What the cache holds: finished steps, and timing caches. Whoever can write there is trusted; disks err."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.mutators import octets, plain


class EntryDoor(Door):
    """An entry of the cache."""

    name, reads = "cache", "an entry of the cache"
    lenient = writes = True

    def prepare(self) -> None:
        import cnnx.pipeline.cache
        import cnnx.store.cache  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        store, _ = self._made(scratch / "made")
        root = store.root.parent
        found = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return {"entry": {path.relative_to(root).as_posix(): path.read_bytes() for path in found}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        name = dice.choice([each for each in files if "/made/" in each])
        content = files[name]
        assert isinstance(content, bytes)
        match dice.randrange(5):
            case 0:
                return {path: each for path, each in files.items() if path != name}, "missing file"
            case 1:
                return {
                    **files,
                    name: dice.choice((Path("/etc/passwd"), Path("absent"), None)),
                }, "no regular file"
            case 2:
                return {**files, f"{name}.more": b"x"}, "added file"
            case 3 if name.endswith(".json"):
                changed, how = plain.json_text(dice, json.loads(content))
                return {**files, name: changed}, how
            case _:
                changed, how = octets.damage(dice, content)
                return {**files, name: changed}, how

    def read(self, folder: Path) -> Any:
        """What the step gives: reused if it is whole, else made again."""
        _, entry = self._made(folder)
        return (entry.folder / "values.txt").read_text(encoding="utf-8")

    def command(self, folder: Path) -> list[str]:
        return ["cache", "--prune", "0"]

    def variables(self, folder: Path) -> Mapping[str, str]:
        return {**os.environ, "CNNX_CACHE": str(folder / "cache")}

    @staticmethod
    def _made(folder: Path) -> tuple[Any, Any]:
        from cnnx.store.cache import Store

        def fill(draft: Path) -> None:
            (draft / "values.txt").write_text("a b c " * 100, encoding="utf-8")

        store = Store(folder / "cache")
        return store, store.make("made", {"number": 1}, fill)


class TimingDoor(Door):
    """A timing cache, which goes to TensorRT as it is."""

    name, reads = "timing cache", "TensorRT's timing cache"

    def prepare(self) -> None:
        import cnnx.pipeline.cache
        import cnnx.runtimes.trt.timing_cache  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {"cache": {"jetson-10.3.0.timing": bytes(range(64)) * 4}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        [(name, content)] = files.items()
        if dice.random() < 0.2:
            return {name: dice.choice((None, Path("/dev/zero"), Path("absent")))}, "no regular file"
        assert isinstance(content, bytes)
        changed, how = octets.damage(dice, content)
        return {name: changed}, how

    def read(self, folder: Path) -> Any:
        """What the builder is given: the file, or an empty cache where it refuses that."""
        from cnnx.runtimes.trt.timing_cache import TimingCache

        config = _Config(bytes(range(64)) * 4)
        remark = TimingCache(folder, device="Jetson", version="10.3.0").give_to(config)
        return config.given, remark is None

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        return "an empty cache in place of one that TensorRT refuses" if after[0] == b"" else ""

    def command(self, folder: Path) -> list[str]:
        return []  # `build` reads it, on a computer with TensorRT


class _Config:
    """A builder's configuration that takes a cache of its own or an empty one, as TensorRT does."""

    def __init__(self, own: bytes) -> None:
        self.own, self.given = own, b""

    def create_timing_cache(self, data: bytes) -> bytes:
        return data

    def set_timing_cache(self, cache: bytes, *, ignore_mismatch: bool) -> bool:
        fits = cache in (self.own, b"") and not ignore_mismatch
        self.given = cache if fits else self.given
        return fits


DOORS = (EntryDoor(), TimingDoor())
