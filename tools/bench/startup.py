"""Measure `cnnx --help` against an empty Typer app: whole processes in turns, medians and their ratio.

python -m tools.bench.startup [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

EMPTY = "import typer; app = typer.Typer(add_completion=False); app.command()(lambda: None); app(['--help'])"
OURS = "import sys; sys.argv = ['cnnx', '--help']; from cnnx.cli import main; main()"


def seconds(program: str, bytecode: str) -> float:
    """Wall time of a process that finds its modules compiled, as those of an installed package are."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.DEVNULL,
        check=True,
        env=settings | {"PYTHONPYCACHEPREFIX": bytecode},
    )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="counted runs of each")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as bytecode:
        for program in (EMPTY, OURS):
            seconds(program, bytecode)  # compiles, and warms the disk cache
        pairs = [(seconds(EMPTY, bytecode), seconds(OURS, bytecode)) for _ in range(runs)]
    empty, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"empty Typer app {empty * 1e3:.0f} ms, cnnx --help {ours * 1e3:.0f} ms")
    print(f"ratio {ratio:.2f}, median of {runs} pairs")


if __name__ == "__main__":
    main()
