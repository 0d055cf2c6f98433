"""Child process of `measure_footprint`: reads the request from its argument, writes JSON to stdout."""

from __future__ import annotations

import json
import sys

from cnnx.errors import CnnxError
from cnnx.measure.footprint import footprint_here


def main(arguments: list[str]) -> int:
    """Measure according to the request, a JSON object."""
    try:
        found = footprint_here(json.loads(arguments[0]))
    except CnnxError as error:
        sys.stderr.write(f"{error.what}: {error.where}" if error.where else error.what)
        return error.exit_code
    sys.stdout.write(json.dumps(found.as_dict()))
    return 0
