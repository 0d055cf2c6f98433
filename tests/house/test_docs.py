"""Every command and every Python example in README.md and docs/ runs, page by page, as a reader would run it.

Readers have what quickstart.md makes, and images, a model, a recipe and checkpoints of their own. A block
that needs what is not here has a comment before it: `<!-- not run: the reason -->`.
"""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

import cnnx
from cnnx.cli.app import app
from tests.inputs.graphs import maxima_of
from tests.inputs.quantized import with_qdq
from tools.markdown import wrapped

torch = pytest.importorskip("torch", reason="exports need PyTorch")

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- (?P<why>[^>]*) -->\n+)?```(?P<language>sh|python)\n(?P<code>.*?)```", re.DOTALL)
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    if any(
        not (match["why"] or "").startswith("not run") for match in BLOCK.finditer(page.read_text("utf-8"))
    )
)
NET = """import torch

def build(classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 5, stride=2), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(16 * 14 * 14, classes),
    )
"""


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name
)
def test_pages_are_wrapped_at_100_columns(page):
    text = page.read_text("utf-8")
    assert text == wrapped(text)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, cache):
    """A folder with what the pages assume that a reader has."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("reader")
    digits = np.load(ROOT / "calibration" / "digits" / "digits.npz")["pixels"]
    for name, first, count in (("photos", 0, 80), ("val", 800, 40)):
        for index in range(first, first + count):
            path = folder / name / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits[index]).convert("RGB").resize((40, 40)).save(path)
    (folder / "net.py").write_text(NET)
    recipe = next(m["code"] for m in _blocks("docs/own-network.md", "toml"))
    (folder / "mine.toml").write_text(recipe)
    scope: dict[str, object] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    model = scope["build"](2).eval()
    save_file(scope["build"](10).state_dict(), folder / "mine.safetensors")
    torch.onnx.export(model, torch.zeros(1, 3, 32, 32), folder / "model.onnx", dynamo=False, opset_version=19)
    fp32 = onnx.load(folder / "model.onnx")
    onnx.save(with_qdq(fp32, maxima_of(fp32, np.ones((1, 3, 32, 32), np.float32))), folder / "qat.onnx")
    from cnnx.models import lenet

    save_file(lenet.lenet5(classes=10).state_dict(), folder / "mine-lenet5.safetensors")
    torch.save({"state_dict": lenet.lenet5(classes=26).state_dict()}, folder / "letters.pth")
    (folder / "letters.txt").write_text("\n".join("abcdefghijklmnopqrstuvwxyz") + "\n")
    cnnx.export("lenet5", precision="int8", out=folder / "lenet5-int8")
    if importlib.util.find_spec("cryptography"):
        from tests.inputs.keys import key_pair

        _, public = key_pair(folder, "private")
        public.rename(folder / "public.pem")
    return folder


def _blocks(page: str, language: str):
    text = (ROOT / page).read_text("utf-8")
    return re.finditer(rf"```{language}\n(?P<code>.*?)```", text, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_run_runs(page, inputs, tmp_path, monkeypatch):
    here = shutil.copytree(inputs, tmp_path / "reader")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)  # as a script in that folder has it
    ran = 0
    for block in BLOCK.finditer((ROOT / page).read_text("utf-8")):
        if (block["why"] or "").startswith("not run"):
            continue
        if block["language"] == "python":
            exec(compile(block["code"], page, "exec"), {})
            ran += 1
            continue
        for line in block["code"].splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] != ["cnnx"]:
                assert words[:1] == ["pip"], f"{page}: {line!r} is neither run nor marked"
                continue
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code in (0, 6), f"{page}: {line}\n{result.output}"
            ran += 1
    assert ran


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(name for name in cnnx.__all__ if inspect.isfunction(getattr(cnnx, name)))
)
def test_examples_in_docstrings_are_true(name, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(inputs, tmp_path / "reader"))
    function = getattr(cnnx, name)
    examples = doctest.DocTestParser().get_doctest(
        inspect.getdoc(function), {"cnnx": cnnx, "np": np}, name, None, None
    )
    assert examples.examples
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not failed, "".join(said)
