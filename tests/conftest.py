import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for the whole run, shared by its workers: what one test exported, the next one finds."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    before = os.environ.get("CNNX_CACHE")
    os.environ["CNNX_CACHE"] = str(root / "cnnx-cache")
    yield Path(os.environ["CNNX_CACHE"])
    if before is None:
        del os.environ["CNNX_CACHE"]
    else:
        os.environ["CNNX_CACHE"] = before
