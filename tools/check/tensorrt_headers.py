"""Compile the TensorRT part of the C++ package against NVIDIA's published headers.

python -m tools.check.tensorrt_headers --cuda /usr/local/cuda/include INCLUDE...

Each INCLUDE is the folder include/ of a release of github.com/NVIDIA/TensorRT. Nothing is linked or run:
this proves that the calls exist there with these arguments, and that none is deprecated. Exits with 1 if a
compiler refuses.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import ROOT

PROGRAM = ROOT / "exporter/cnnx/package/cpp/program"


def release_of(include: Path) -> str:
    """The release that a folder of headers states, such as "10.3.0"."""
    text = (include / "NvInferVersion.h").read_text("utf-8")
    parts = (
        re.search(rf"#define (?:NV_TENSORRT|TRT)_{part}(?:_ENTERPRISE)? (\d+)", text)
        for part in ("MAJOR", "MINOR", "PATCH")
    )
    return ".".join(part[1] if part else "?" for part in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cuda", type=Path, required=True, help="folder of cuda_runtime_api.h")
    parser.add_argument("include", type=Path, nargs="+", help="folder of NvInfer.h")
    options = parser.parse_args()
    failed = False
    for include in options.include:
        for compiler in filter(shutil.which, ("g++", "clang++")):
            command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"]
            command += ["-I", str(PROGRAM / "include")]
            command += [word for path in (include, options.cuda) for word in ("-isystem", str(path))]
            command.append(str(PROGRAM / "src" / "tensorrt_session.cpp"))
            done = subprocess.run(command, capture_output=True, text=True)
            failed |= done.returncode != 0
            result = "compiles" if done.returncode == 0 else "does not compile"
            print(f"TensorRT {release_of(include)}, {compiler}: {result}\n{done.stderr}", end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
