"""Environment variables: those that cnnx reads, and those that its libraries read for it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from cnnx.errors import EnvironmentLacks
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.judging import Judged, judge_command
from tools.check.fuzz.mutators import text

_NAMES = (
    "CNNX_CACHE", "XDG_CACHE_HOME", "TORCH_HOME", "HOME", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "PATH",
    "LD_LIBRARY_PATH", "PYTHONPATH", "COLUMNS", "LINES", "TERM", "NO_COLOR", "FORCE_COLOR", "TMPDIR",
    "LANG", "CNNX_KEY_PASSPHRASE", "TZ", "http_proxy", "https_proxy", "no_proxy", "COLORTERM",
    "TTY_COMPATIBLE", "TTY_INTERACTIVE", "JUPYTER_COLUMNS", "TYPER_USE_RICH", "TERMINAL_WIDTH",
    "_TYPER_FORCE_DISABLE_TERMINAL", "POLARS_MAX_THREADS", "PYTHONHASHSEED",
)  # fmt: skip
_VALUES = (
    "", " ", "0", "-1", "1", "x" * 5000, "/absent/x", "/dev/null", "/etc/passwd", ".", "..", "~",
    "~nobody/x", "a:b::.", "²", "99999999999", "1e9", "nan", "\udcff", "é", "\x1b[31m", "dumb", "unknown",
    "true", "/proc/self/mem", "/" * 300,
)  # fmt: skip
_SHOWN = (["cache"], ["cache", "--help"], ["cache", "--strange"])


class EnvironmentDoor(Door):
    """Variables of the environment, each with any value."""

    name, reads = "environment", "environment variables"

    def prepare(self) -> None:
        import cnnx.pipeline.cache
        import cnnx.pipeline.networks  # noqa: F401
        from cnnx.cli.app import app

        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            app(["cache", "--json"])  # what the command imports when it runs, forked processes find there

    def seeds(self, scratch: Path) -> dict[str, Files]:
        plain = {"CNNX_CACHE": str(scratch / "cache"), "COLUMNS": "100", "HOME": str(scratch)}
        return {"plain": {"environment": json.dumps(plain, indent=1).encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        plain = json.loads(text_of(files, "environment"))
        changed = [dice.choice(_NAMES) for _ in range(dice.choice((1, 1, 2, 4)))]
        for name in changed:
            value = (
                dice.choice(_VALUES) if dice.random() < 0.8 else text.edit(dice, plain.get(name, "/a/b"))[0]
            )
            plain[name] = (
                value.replace("\0", "").encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
            )
            if dice.random() < 0.1:
                del plain[name]
        return {"environment": json.dumps(plain, indent=1).encode()}, ", ".join(sorted(changed))

    def read(self, folder: Path) -> Any:
        """The folder of the cache, by a command in a child; some also print for people before."""
        work, variables = folder.parent / "work", self.variables(folder)
        work.mkdir(exist_ok=True)
        chosen = zlib.crc32((folder / "environment").read_bytes())
        commands = [(_SHOWN[chosen // 3 % len(_SHOWN)], False)] * (chosen % 3 == 0)
        for arguments, as_json in (*commands, (["cache"], True)):
            known = Judged("same", "")
            found = judge_command(arguments, work, known, variables=variables, as_json=as_json)
            if found.kind == "finding":
                raise AssertionError(f"{found.what}: {found.detail}")
        printed = json.loads((work / "stdout").read_bytes())
        if "error" in printed:
            raise EnvironmentLacks(printed["error"]["what"], hint=printed["error"]["hint"])
        return printed["result"]["folder"]

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """The folder is below the first of three variables that is set."""
        variables, work = self.variables(folder), folder.parent / "work"
        places = (variables.get(name) for name in ("CNNX_CACHE", "XDG_CACHE_HOME", "HOME"))
        stated = next((place for place in places if place), str(Path("~root").expanduser()))
        return "another folder, as the variables state" if Path(after).is_relative_to(work / stated) else ""

    def command(self, folder: Path) -> list[str]:
        return ["list"]

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Those of the file, and of this process only what is not tried."""
        stated: dict[str, str] = json.loads((folder / "environment").read_text(encoding="utf-8"))
        return {name: value for name, value in os.environ.items() if name not in _NAMES} | stated


DOORS = (EnvironmentDoor(),)
