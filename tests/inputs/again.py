"""Objects through JSON and back."""

import json

from cnnx.errors import BundleError
from cnnx.schema import from_plain


def again(cls, data):
    """What a reader makes of plain data in a file."""
    return from_plain(cls, json.loads(json.dumps(data)), where="a test", error=BundleError)
