"""The process of `measure_footprint`: python -m cnnx.measure REQUEST, the answer on standard output."""

from __future__ import annotations

import json
import sys

from cnnx.measure.footprint import footprint_here


def main(arguments: list[str]) -> int:
    """Measure what the request, one JSON object, names."""
    found = footprint_here(json.loads(arguments[0]))
    sys.stdout.write(json.dumps(found.as_dict()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
