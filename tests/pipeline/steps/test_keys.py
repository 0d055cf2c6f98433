"""A step's key covers the code that it executes; otherwise old files would be reused after an edit."""

import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

import cnnx
from cnnx.pipeline.export import publish
from cnnx.pipeline.progress import Steps
from cnnx.runtimes import get
from cnnx.store.own_code import closure

pytest.importorskip("torch", reason="exports need PyTorch")
PACKAGE = Path(cnnx.__file__).parent
FORBIDDEN = ("cnnx.measure", "cnnx.report", "cnnx.cli")


def module_of(file: str) -> str | None:
    """The cnnx module of a code object; None for other code and for `cnnx` itself."""
    path = Path(file)
    if not path.is_relative_to(PACKAGE):
        return None
    return ".".join(("cnnx", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Run every kind of step once: kind -> (modules named by its keys, modules that executed)."""
    named, executed = defaultdict(set), defaultdict(set)
    make = Steps.make

    def watched_make(self, title, kind, inputs, fill):
        for value in inputs.values():
            if isinstance(value, dict) and "modules" in value:
                named[kind].update(value["modules"])

        def watched(folder, progress):
            files = set()

            def look(frame, event, _argument):
                if event == "call":
                    files.add(frame.f_code.co_filename)

            outer = sys.getprofile()
            sys.setprofile(look)
            threading.setprofile(look)
            try:
                fill(folder, progress)
            finally:
                sys.setprofile(outer)
                threading.setprofile(outer)
            executed[kind].update(filter(None, map(module_of, files)))

        return make(self, title, kind, inputs, watched)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "make", watched_make)
        folder = tmp_path_factory.mktemp("steps")
        patch.setenv("CNNX_CACHE", str(folder / "cache"))
        run_every_step(folder)
    return {kind: (named[kind], executed[kind] - {"cnnx"}) for kind in named}


def run_every_step(folder):
    few = {"calibration_images": 16, "validation_images": 16}
    build = {} if get("rtx").missing() else {"target": "rtx", "sm": [86]}
    options = {"precision": "int8", "method": "auto", "repair": True, **few, **build}
    result = cnnx.export("lenet5", out=folder / "int8", **options)
    cnnx.diagnose(result.bundle.path, images=16)
    cnnx.calibrate("lenet5", calibration_images=32, folds=2)
    # A definition whose statistics come from images, and a user's ONNX file.
    cnnx.export("resnet20", out=folder / "standin", precision="fp32", weights="standin", validation_images=2)
    cnnx.export(str(folder / "standin" / "model.onnx"), out=folder / "own", precision="fp16", **few)
    # A file with its own scales, and a reference.
    quantized = {"precision": "int8", "reference": folder / "int8" / "model.onnx"}
    cnnx.export(str(folder / "int8" / "model.onnx"), out=folder / "again", **quantized, **few)


def test_every_step_is_covered(filled):
    kinds = {"crops", "export", "reference", "equalized", "statistics", "calibration", "graph", "floor"}
    kinds |= {"choice", "repair", "folds", "damage", "remedies", "early-remedies"}
    kinds |= set() if get("rtx").missing() else {"engine"}
    assert set(filled) == kinds and all(executed for _, executed in filled.values())


def test_a_key_covers_all_code_that_fills_the_step(filled):
    missing = {kind: executed - closure(*named) for kind, (named, executed) in filled.items()}
    assert not {kind: modules for kind, modules in missing.items() if modules}


def test_a_fingerprint_of_a_bundle_covers_the_code_that_writes_it(monkeypatch, tmp_path):
    """Otherwise a bundle with an old self-test would be left unchanged."""
    named = set()
    monkeypatch.setattr(publish, "own_code", lambda *modules: named.update(modules) or {})
    cnnx.export("lenet5", out=tmp_path / "b", precision="fp32", validation_images=2)
    covered = closure(*named)
    assert {"cnnx.pipeline.export.publish", "cnnx.pipeline.steps.inference", "cnnx.agreement"} <= covered
    assert not [module for module in covered if module.startswith((*FORBIDDEN, "cnnx.pipeline.search"))]


def test_no_key_covers_code_that_measures_or_reports(filled):
    for kind, (named, _) in filled.items():
        assert not [module for module in closure(*named) if module.startswith(FORBIDDEN)], kind
