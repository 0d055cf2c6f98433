"""See `tools.bench.fleet`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tools.bench.fleet import killed, many, overhead

_PARTS = {"killed": killed.run, "overhead": overhead.run, "many": many.run}


def main() -> None:
    """Run the parts, and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.fleet", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(_PARTS), choices=[*_PARTS, []], metavar="PART")
    parts = parser.parse_args().parts
    with tempfile.TemporaryDirectory(prefix="fleet-") as scratch:
        tables = {part: _PARTS[part](Path(scratch, part)) for part in parts}
    for part, lines in tables.items():
        print(f"\n{part}\n", *lines, sep="\n")


if __name__ == "__main__":
    main()
