"""The package, built twice: as a user builds it, and under sanitizers on stand-ins of TensorRT and CUDA."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnx.bundle import Bundle
from cnnx.package.cpp import write
from tests.inputs.programs import run
from tests.package.cpp.linear import linear_bundle

SOURCES = Path(__file__).parent
SANITIZED = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1:max_allocation_size_mb=4096",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def needed():
    """What is missing to build the package; empty if nothing is."""
    tools = [name for name in ("g++", "cmake", "ninja") if shutil.which(name) is None]
    headers = {
        "nlohmann-json3-dev": "/usr/include/nlohmann/json.hpp",
        "libstb-dev": "/usr/include/stb/stb_image.h",
    }
    return tools + [package for package, header in headers.items() if not Path(header).exists()]


def onnxruntime_library():
    """The shared library inside the Python package onnxruntime."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None and spec.origin is not None
    return next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"))


def build(source, folder, **definitions):
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run("cmake", "-G", "Ninja", "-S", source, "-B", folder, *options)
    run("ninja", "-C", folder)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Folders of the package, of both builds, and of an installation; workers of one run share them."""
    if missing := needed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {', '.join(missing)}")
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cpp"
    root.mkdir(exist_ok=True)
    made = SimpleNamespace(
        package=root / "package",
        plain=root / "plain",
        sanitized=root / "sanitized",
        installed=root / "installed",
    )
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            made.package.mkdir()
            write(Bundle.open(linear_bundle(root / "bundle")), made.package)
            build(made.package, made.plain, CMAKE_CXX_FLAGS="-Werror", CNNX_TENSORRT="OFF")
            run("cmake", "--install", made.plain, "--prefix", made.installed)
            build(SOURCES, made.sanitized, PACKAGE=made.package, CMAKE_EXPORT_COMPILE_COMMANDS="ON")
            (root / "done").touch()
    return made


@pytest.fixture(scope="session")
def program(built):
    """Runs a program of the sanitized build; `fails` names the call of a stand-in that is to fail."""

    def start(name, *arguments, text=True, fails="", data=None, **settings):
        path = built.sanitized / (f"package/{name}" if name == "cnnx_classify" else name)
        environment = {
            **os.environ,
            **SANITIZED,
            "CNNX_ONNXRUNTIME": str(onnxruntime_library()),
            "CNNX_STANDIN_FAIL": fails,
            **{f"CNNX_STANDIN_{key}": value for key, value in settings.items()},
        }
        command = [str(path), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=text, input=data, env=environment, timeout=540
        )
        assert done.returncode in (0, 1, 2, 3, 4, 6), done.stderr  # a sanitizer ends a program otherwise
        assert "Sanitizer" not in str(done.stderr), done.stderr
        return done

    return start
