"""Child process of `measure_footprints`: reads the request from its argument, prints lines of JSON."""

from __future__ import annotations

import json
import sys

from cnnx.errors import CnnxError
from cnnx.measure.footprint import footprints_here


def main(arguments: list[str]) -> int:
    """Measure according to the request, a JSON object. Each line is written before the next measurement."""
    try:
        for found in footprints_here(json.loads(arguments[0])):
            sys.stdout.write(json.dumps(found.as_dict()) + "\n")
            sys.stdout.flush()
    except CnnxError as error:
        sys.stderr.write(f"{error.what}: {error.where}" if error.where else error.what)
        return error.exit_code
    return 0
