"""Compare the positions that the C++ package declares for ONNX Runtime's C API with a published header.

python -m tools.check.ort_api onnxruntime_c_api.h

The header is that of any release: include/onnxruntime/core/session/onnxruntime_c_api.h of its repository.
Exits with 1 if a position differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tools import ROOT

DECLARED = ROOT / "exporter/cnnx/package/cpp/program/src/onnxruntime_api.hpp"
_STRUCT = re.compile(r"^struct OrtApi \{(.*?)^\};", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
# A member is a macro with its name first, a release function, or a plain pointer to a function.
_MEMBER = re.compile(
    r"ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE\(\s*(\w+)|\(\s*ORT_API_CALL\s*\*\s*(\w+)\s*\)\s*\("
)
_ENTRY = re.compile(r"using (\w+) =\s*Entry<(\d+),")


def published(header: str) -> list[str]:
    """Names of the functions in the table, in order."""
    found = _STRUCT.search(header)
    if found is None:
        raise SystemExit("the file does not have struct OrtApi")
    members = _MEMBER.findall(_COMMENT.sub("", found[1]))
    return [plain or pointer or f"Release{released}" for plain, released, pointer in members]


def declared() -> dict[str, int]:
    """Name of each function that the package declares, and its position."""
    return {name: int(position) for name, position in _ENTRY.findall(DECLARED.read_text("utf-8"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("header", type=Path)
    text = parser.parse_args().header.read_text("utf-8", "replace").replace("\r\n", "\n")
    names = published(text)
    wrong = []
    for name, position in declared().items():
        found: object = names.index(name) if name in names else "no position"
        if found != position:
            wrong.append(f"{name}: declared at {position}, published at {found}")
    version = re.search(r"#define ORT_API_VERSION (\d+)", text)
    print("\n".join(wrong) or f"{len(declared())} of {len(names)} positions compared: they agree", end="")
    print(f" (API version {version[1] if version else 'unknown'})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
