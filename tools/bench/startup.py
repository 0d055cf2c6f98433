"""Measure `cnnx --help` against an empty Typer app: whole processes in turns, medians and their ratio.

python -m tools.bench.startup [--runs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

EMPTY = "import typer; app = typer.Typer(add_completion=False); app.command()(lambda: None); app(['--help'])"
OURS = "import sys; sys.argv = ['cnnx', '--help']; from cnnx.cli import main; main()"


def seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="counted runs of each")
    runs = parser.parse_args().runs
    for program in (EMPTY, OURS):
        seconds(program)  # warm up bytecode files and the disk cache
    pairs = [(seconds(EMPTY), seconds(OURS)) for _ in range(runs)]
    empty, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"empty Typer app {empty * 1e3:.0f} ms, cnnx --help {ours * 1e3:.0f} ms")
    print(f"ratio {ratio:.2f}, median of {runs} pairs")


if __name__ == "__main__":
    main()
