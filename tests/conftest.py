import os
from pathlib import Path

import pytest
from hypothesis import settings

# Other work on the machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None and hasattr(os, "sched_setaffinity"):
    # One core each, before anything makes threads: pools as wide as the machine would wait for one another.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items):
    """The long ones first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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
