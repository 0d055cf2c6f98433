import subprocess
import sys

HEAVY = (
    "msgspec",
    "numpy",
    "onnx",
    "onnxruntime",
    "torch",
    "polars",
    "PIL",
    "safetensors",
    "pynvml",
    "tensorrt",
    "tensorrt_rtx_bindings",
    "pycuda",
    "model_signing",
)


def imported(program):
    """Which of the heavy packages a program has imported when it ends."""
    code = f"""
import sys
try:
    {program}
except SystemExit:
    pass
print("loaded:", *sorted(set(sys.modules) & set({HEAVY!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_and_the_package_itself_import_nothing_heavy():
    for program in (
        "import cnnx; dir(cnnx)",
        "import sys; sys.argv = ['cnnx', '--help']; from cnnx.cli import main; main()",
        "import sys; sys.argv = ['cnnx', 'export', '--help']; from cnnx.cli import main; main()",
        "import sys; sys.argv = ['cnnx', '--version']; from cnnx.cli import main; main()",
    ):
        assert imported(program) == [], program


def test_list_needs_no_runtime():
    program = "import sys; sys.argv = ['cnnx', 'list']; from cnnx.cli import main; main()"
    assert {"torch", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings"}.isdisjoint(imported(program))
