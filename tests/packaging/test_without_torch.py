"""A finished bundle on a machine without PyTorch, as a Jetson is."""

import json
import subprocess
import sys

import onnx
import pytest

from tests.doubles import power_trees
from tests.inputs.programs import pip, run
from tests.inputs.tiny import tiny_graph
from tests.inputs.traps import CHILDREN, set_traps
from tools import ROOT

BLOCKED = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
from cnnx.cli import main
main()
"""


def exported(out, **options):
    pytest.importorskip("torch", reason="the bundle is exported from PyTorch")
    import cnnx

    return cnnx.export("lenet5", precision="int8", out=out, **options).bundle.path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("b") / "bundle")


def use(command, bundle):
    """Every verb on a finished bundle; each must succeed and print its one object."""
    for verb, *options in (["inspect"], ["validate"], ["bench", "--seconds", "0.2"]):
        done = command(verb, bundle, *options, "--json")
        assert done.returncode == 0, (verb, done.stdout, done.stderr)
        assert json.loads(done.stdout)["command"] == verb
        if verb == "validate":
            assert json.loads(done.stdout)["result"]["self_test"]["verdict"] == "passed"


def test_no_verb_on_a_bundle_imports_torch(bundle, tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-c", BLOCKED, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    use(command, bundle)
    built = command("build", bundle, "--target", "rtx", "--sm", "86", "--json")
    assert built.returncode == 0 or ".[rtx]" in built.stdout
    exported = command("export", "lenet5", "--scales", "fp32", "--batch", "1..3")
    assert exported.returncode == 4 and ".[export]" in exported.stderr, exported.stderr


@pytest.mark.slow
def test_a_bundle_works_on_python_310_without_torch(bundle, wheel, venv310, tmp_path):
    """With FP32 scales. The newest ONNX Runtime for Python 3.10 truncates where QuantizeLinear of FP16 must
    round to nearest: the self-test of a bundle with FP16 scales finds that, and must fail."""
    pip(venv310, "--require-hashes", "--no-deps", "-r", ROOT / "tools" / "pins" / "python3.10.txt")
    pip(venv310, "--no-deps", wheel)
    python = venv310 / "python"
    sprung = set_traps(tmp_path / "traps")
    taken = exported(tmp_path / "taken-along", scales="fp32")

    def command(*arguments):
        program = [venv310 / "cnnx", *map(str, arguments)]
        return subprocess.run(program, capture_output=True, text=True, cwd=tmp_path / "traps")

    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    use(command, taken)
    assert command("validate", bundle).returncode == 1
    built = command("build", taken, "--target", "rtx", "--sm", "86")
    assert built.returncode == 4 and ".[rtx]" in built.stderr
    power_trees.orin_nx(tmp_path / "tree")
    (tmp_path / "children.py").write_text(CHILDREN)
    onnx.save(tiny_graph(), tmp_path / "tiny.onnx")
    folders = (tmp_path / "traps", tmp_path / "tree", tmp_path / "tiny.onnx")
    run(python, tmp_path / "children.py", *folders, cwd=tmp_path)
    assert sprung() == []
