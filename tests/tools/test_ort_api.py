"""The check of ONNX Runtime's C API, on headers in the published style."""

import subprocess
import sys

from tools import ROOT
from tools.check.ort_api import declared


def header(moved=""):
    """A header in which every declared function is where it is declared, but for one."""
    names = {position: name for name, position in declared().items()}
    members = []
    for position in range(140):
        name = names.get(position, f"Other{position}")
        name = "Moved" if name == moved else name
        if name.startswith("Release"):
            members.append(f"  /** Releases. */\n  ORT_CLASS_RELEASE({name.removeprefix('Release')});")
        elif position % 2:
            members.append(f"  const char*(ORT_API_CALL* {name})(_In_ const OrtStatus* status) NO_EXCEPTION;")
        else:
            members.append(f"  ORT_API2_STATUS({name}, int a,\n                  int b);  // as Run(...)")
    text = "\n".join(members)
    return f"#define ORT_API_VERSION 23\nstruct OrtApi {{\n{text}\n}};\n"


def check(file):
    command = [sys.executable, "-m", "tools.check.ort_api", file]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_positions_are_compared_with_a_published_header(tmp_path):
    assert len(declared()) == 15
    file = tmp_path / "onnxruntime_c_api.h"
    file.write_text(header())
    same = check(file)
    assert same.returncode == 0 and "they agree (API version 23)" in same.stdout
    file.write_text(header(moved="Run"))
    moved = check(file)
    assert moved.returncode == 1 and "Run: declared at 9, published at no position" in moved.stdout
