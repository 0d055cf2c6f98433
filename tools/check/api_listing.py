"""List TensorRT's Python API: classes, enums with members, methods with arguments.

python -m tools.check.api_listing WHEEL_OR_FOLDER [--only FILE.pyi | --only NAME,NAME] > listing.pyi

The wheel of the bindings (tensorrt-cu12-bindings, tensorrt-cu13-bindings, tensorrt-rtx-cu13-bindings) is
enough. It is imported in a separate process against empty stub libraries, compiled here with cc. The wheel
must match this Python. With --only, lists the given classes, or those of an existing listing; this keeps
tests/runtimes/engine/trt_api small.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import inspect
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tools import ROOT

# Undefined C symbols of the bindings, which NVIDIA's libraries provide.
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARY = re.compile(
    rb"lib(?:nvinfer|nvinfer_plugin|nvonnxparser|tensorrt_rtx|tensorrt_onnxparser_rtx)\.so\.\d+"
)
_PACKAGES = ("tensorrt_bindings", "tensorrt_rtx_bindings")
# pybind11 writes the signature into the first line of a docstring.
_SIGNATURE = re.compile(r"^(\w+)\((.*)\)(?: -> .*)?$")


def listing(place: Path, only: Sequence[str] = ()) -> str:
    """The listing of a wheel, or of the folder that holds the package, made in a separate process."""
    command = [sys.executable, "-m", "tools.check.api_listing", str(place.resolve())]
    command += ["--only", ",".join(only), "--here"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"cannot list {place.name}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def imported(place: Path) -> Iterator[ModuleType]:
    """The bindings, imported into this process against stubs: for inspection only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if place.is_file():
            with zipfile.ZipFile(place) as wheel:
                wheel.extractall(folder)
            place = folder
        package = next((package for package in _PACKAGES if (place / package).is_dir()), None)
        if package is None:
            raise FileNotFoundError(f"{place} contains none of {', '.join(_PACKAGES)}")
        binaries = [binary.read_bytes() for binary in (place / package).glob("*.so")]
        sonames = sorted({found.decode() for binary in binaries for found in _LIBRARY.findall(binary)})
        for library in stand_ins(sonames, folder):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        sys.path.insert(0, str(place))
        yield importlib.import_module(package)


def stand_ins(sonames: Sequence[str], folder: Path) -> list[Path]:
    """Compile stub shared libraries with these names and all symbols that the bindings need."""
    source = folder / "stand_in.c"
    source.write_text("".join(f"void* {symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    made = []
    for soname in sonames:
        made.append(folder / soname)
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(made[-1]), str(source)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made


def describe(module: ModuleType, only: Sequence[str] = ()) -> str:
    """The listing of an imported module."""
    lines = [f'"""{module.__name__} {module.__version__}, by tools/check/api_listing.py."""']
    for name in sorted(only or (name for name in dir(module) if not name.startswith("_"))):
        value = getattr(module, name, None)
        if inspect.isclass(value):
            lines += ["", f"class {name}:", *_members(value)]
        elif callable(value):
            lines += ["", f"def {name}{_signature(value)}: ..."]
    return "\n".join(lines) + "\n"


def _members(kind: type[Any]) -> list[str]:
    enumerated = getattr(kind, "__members__", None)
    lines = []
    for name in sorted(name for name in dir(kind) if not name.startswith("_")):
        value = inspect.getattr_static(kind, name)
        if enumerated is not None and name in enumerated:
            lines.append(f"    {name} = {int(getattr(kind, name))}")
        elif enumerated is not None and name in ("name", "value"):
            continue
        elif not inspect.isclass(value) and (callable(value) or isinstance(value, staticmethod)):
            lines.append(f"    def {name}{_signature(value)}: ...")
        else:
            lines.append(f"    {name}: object")
    return lines or ["    ..."]


def _signature(function: Any) -> str:
    """Argument names, including "self"; "(*args, **kwargs)" if the docstring has none."""
    if inspect.isfunction(function):
        return re.sub(r"=[^,)]+", "=...", str(inspect.signature(function)))
    text = inspect.getdoc(function) or ""
    for line in text.splitlines()[:8]:
        if found := _SIGNATURE.match(re.sub(r"^\d+\. ", "", line.strip())):
            if found[2].startswith("*args"):
                continue
            arguments = [_argument(part) for part in _split(found[2])]
            # add_scale_nd has an argument without a default after one with: not valid in Python.
            required = max((at for at, name in enumerate(arguments) if "=" not in name), default=-1)
            arguments[:required] = [name.partition("=")[0] for name in arguments[:required]]
            return f"({', '.join(arguments)})"
    return "(*args, **kwargs)"


def _argument(text: str) -> str:
    name, _, default = text.partition(":")
    return name.strip() + ("=..." if "=" in default else "")


def _split(arguments: str) -> Iterator[str]:
    """Split at commas outside brackets."""
    depth, part = 0, ""
    for character in arguments:
        depth += (character in "[(") - (character in ")]")
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def names_in(listed: str) -> list[str]:
    """Names of the classes and functions in a listing."""
    return re.findall(r"^(?:class|def) (\w+)", listed, re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "place", type=Path, help="wheel of the bindings, or the folder that holds the package"
    )
    parser.add_argument("--only", default="", help="an existing listing, or comma-separated names")
    parser.add_argument("--here", action="store_true", help="import into this process")
    options = parser.parse_args()
    file = Path(options.only)
    only = names_in(file.read_text()) if file.suffix == ".pyi" else [n for n in options.only.split(",") if n]
    if not options.here:
        print(listing(options.place, only), end="")
        return 0
    with imported(options.place) as module:
        print(describe(module, only), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
