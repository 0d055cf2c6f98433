import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Other work on the machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) is not None and hasattr(os, "sched_setaffinity"):
    # One core each, before anything makes threads (so fixtures import cnnx themselves): pools as wide as the
    # machine would wait for one another.
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


@pytest.fixture(scope="session", autouse=True)
def glance():
    """Exports measure latency in five runs, not in a second of them: the suite makes hundreds."""
    from cnnx.pipeline.bench.latency import Effort
    from cnnx.pipeline.export import export

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_GLANCE", Effort(min_seconds=0.02, min_samples=5, max_seconds=1.0))
        yield


def invoke(*arguments):
    from typer.testing import CliRunner

    from cnnx.cli.app import app

    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Debian's chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def cnnx_command():
    """Run a command in this process; gives (exit code, stdout, stderr)."""

    def run(*arguments):
        result = invoke(*arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.output
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def cnnx_process():
    """Run a command in a process of its own; gives the finished process."""

    def run(*arguments, **options):
        command = [str(Path(sys.executable).parent / "cnnx"), *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, **options
        )

    return run


def save_tiny(folder):
    import onnx

    from tests.inputs.tiny import tiny_graph

    onnx.save(tiny_graph(), folder / "tiny.onnx")
    return folder / "tiny.onnx"


@pytest.fixture
def tiny(tmp_path):
    return save_tiny(tmp_path)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, cache):
    """A whole INT8 bundle, made without PyTorch."""
    from tests.inputs.tiny import FEW

    folder = tmp_path_factory.mktemp("tiny")
    out = folder / "bundle"
    result = invoke("export", save_tiny(folder), "--int8", *FEW, "--out", out, "--json")
    assert json.loads(result.stdout)["result"]["bundle"]["path"] == str(out)
    return out
