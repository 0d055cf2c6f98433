"""`export --with-source`: the bundle alone gives its typed graph again, and a diagnosis, without PyTorch."""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.errors import BundleError, InputRefused, UsageError
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.source import read_source
from cnnx.store.digests import digest_of_file
from tests.conftest import invoke
from tests.inputs.graphs import images, maxima_of, residual
from tests.inputs.quantized import with_qdq
from tests.inputs.tiny import tiny_graph

FEW = {"calibration_data": "digits", "validation_data": "digits", "calibration_images": 16}
KINDS: dict[str, dict[str, Any]] = {
    "int8": {"precision": "int8", "input": "uint8-nhwc"},
    "fp16": {"precision": "fp16"},
    "fp32": {"precision": "fp32"},
    "file": {"precision": "int8", "color": "rgb", "scales": "fp32"},
}
AGAIN = """
import sys, tempfile
from pathlib import Path
from cnnx.bundle import Bundle
from cnnx.pipeline.source import read_source

for path in sys.argv[1:]:
    bundle = Bundle.open(Path(path))
    with tempfile.TemporaryDirectory() as folder:
        assert read_source(bundle).write_typed(Path(folder)).read_bytes() == bundle.model.read_bytes(), path
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """Bundles with their source, by kind; the files that they were made from are gone."""
    folder, made = tmp_path_factory.mktemp("source"), {}
    model = residual()
    trained = with_qdq(model, maxima_of(model, images(16)), clip=0.9)
    for kind, options in KINDS.items():
        file = folder / f"{kind}.onnx"
        onnx.save(trained if kind == "file" else tiny_graph(), file)
        more = {**FEW, **options, "validation_images": 16, "target": "ort"}
        made[kind] = cnnx.export(str(file), out=folder / kind, with_source=True, **more).bundle.path
        file.unlink()
    return made


def test_a_bundle_alone_gives_its_graph_again_byte_for_byte_without_torch(bundles: dict[str, Path]) -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN, *bundles.values()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held = {kind: set(Bundle.open(path).source_sizes()) for kind, path in bundles.items()}
    graph, both = {"source.onnx"}, {"source.onnx", "source-statistics.npz"}
    assert held["fp32"] == graph and held["fp16"] == held["int8"] == both
    assert held["file"] == {*both, "source-scales.json"}
    with pytest.raises(UsageError, match="in fp32, so there are no statistics"):
        read_source(Bundle.open(bundles["fp32"])).quantizer(Steps())


def test_a_quantizer_of_a_bundle_alone_chooses_other_ranges(bundles: dict[str, Path], tmp_path: Path) -> None:
    """As an export by that method gives them: the statistics serve every method."""
    quantizer = read_source(Bundle.open(bundles["int8"])).quantizer(Steps())
    onnx.save(tiny_graph(), tmp_path / "int8.onnx")
    options = {**FEW, **KINDS["int8"], "validation_images": 16, "target": "ort", "method": "percentile-99.9"}
    expected = cnnx.export(str(tmp_path / "int8.onnx"), out=tmp_path / "b", **options).bundle.path
    found = quantizer.ranges("percentile-99.9")
    assert found.file.read_bytes() == (expected / "calibration.json").read_bytes()
    assert found.read() != read_source(Bundle.open(bundles["int8"])).calibration


def test_a_diagnosis_needs_nothing_but_the_bundle_and_its_images(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    found = cnnx.diagnose(bundles["int8"], images=8).findings
    onnx.save(tiny_graph(), tmp_path / "int8.onnx")
    assert cnnx.diagnose(bundles["int8"], images=8, model=tmp_path / "int8.onnx").findings == found
    assert {each.layer for each in found.layers} == {"conv", "fc"}


def test_sizes_are_shown(bundles: dict[str, Path], cnnx_command: Any) -> None:
    code, out, _ = cnnx_command("inspect", bundles["file"])
    line = next(each for each in out.splitlines() if each.startswith("source "))
    assert code == 0 and all(name in line for name in Bundle.open(bundles["file"]).source_sizes())
    _, out, _ = cnnx_command("inspect", bundles["file"], "--json")
    sizes = {name: (bundles["file"] / name).stat().st_size for name in ("source.onnx", "source-scales.json")}
    assert sizes.items() <= json.loads(out)["result"]["source"].items()


def test_a_package_takes_the_source_along_and_says_so(bundles: dict[str, Path], tmp_path: Path) -> None:
    result = cnnx.write_package(bundles["int8"], consumer="python", out=tmp_path / "p")
    assert any("includes the bundle's source (" in note for note in result.notes)
    program = "import classify; assert classify.Classifier().self_test()[0] == 16"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "p", check=True)
    made = cnnx.bom(bundles["int8"], out=tmp_path / "b.json", modelpack=tmp_path / "m").document
    assert {"source.onnx", "source-statistics.npz"} <= {each["name"] for each in made["components"]}
    kit = (tmp_path / "m" / "Kitfile").read_text()
    assert '- name: "source.onnx"\n      path: "source.onnx"\n      type: source' in kit


def of_another_network(bundle: Path) -> None:
    model = onnx.load(bundle / "source.onnx")
    weight = next(each for each in model.graph.initializer if each.name == "fc.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), "fc.weight"))
    onnx.save(model, bundle / "source.onnx")


def of_another_tensor(bundle: Path) -> None:
    with np.load(bundle / "source-statistics.npz") as saved:
        arrays = dict(saved)
    layout = arrays["layout"].tobytes().replace(b'"input"', b'"tupni"')
    arrays["layout"] = np.frombuffer(layout, np.uint8)
    np.savez_compressed(bundle / "source-statistics.npz", **arrays)


def no_graph(bundle: Path) -> None:
    (bundle / "source.onnx").write_bytes(b"something else")


def no_statistics(bundle: Path) -> None:
    (bundle / "source-statistics.npz").write_bytes(b"something else")


def scales_in_the_way(bundle: Path) -> None:
    (bundle / "source-scales.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_another_network, "give a different graph here"),
        (of_another_tensor, "calibration.json has a range that was not observed, for input"),
        (no_graph, "is not an ONNX file|not a valid ONNX|damaged"),
        (no_statistics, "the saved statistics cannot be read"),
        (scales_in_the_way, "its ranges are by 'mse', but the manifest lists source-scales.json"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    change: Any, words: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(bundles["int8"], tmp_path / "b"))
    manifest = read_sealed(bundle / "manifest.json", bundle=bundle)
    change(bundle)
    names = {*manifest["files"], *(path.name for path in bundle.glob("source*"))}
    manifest["files"] = {name: digest_of_file(bundle / name) for name in sorted(names)}
    write_sealed(bundle / "manifest.json", manifest)
    done = invoke("diagnose", bundle, "--images", 4)
    assert done.exit_code == 3 and re.search(words, " ".join(done.output.split())), done.output


def test_scales_of_a_file_that_are_none_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundles["file"], tmp_path / "b"))
    (bundle / "source-scales.json").write_text('{"inputs": {"stem": [-1.0]}, "weights": {}, "notes": []}')
    manifest = read_sealed(bundle / "manifest.json", bundle=bundle)
    manifest["files"]["source-scales.json"] = digest_of_file(bundle / "source-scales.json")
    write_sealed(bundle / "manifest.json", manifest)
    with pytest.raises(BundleError, match=r"inputs.stem\[0\]"):
        read_source(Bundle.open(bundle)).write_typed(tmp_path)


def leaves(data: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of every value of nested objects, and of the objects themselves."""
    inner = data.items() if isinstance(data, dict) else ()
    return [path, *(each for key, value in inner for each in leaves(value, (*path, key)))]


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_calibration_under_a_fresh_seal_is_refused_or_changes_nothing(
    data: st.DataObject, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Whoever writes into a bundle can seal it again, but no other result comes of it."""
    bundle = Path(shutil.copytree(bundles["int8"], tmp_path / "b", dirs_exist_ok=True))
    calibration = json.loads((bundles["int8"] / "calibration.json").read_text())
    *folders, name = data.draw(st.sampled_from(leaves(calibration)[1:]))
    place = functools.reduce(lambda inner, key: inner[key], folders, calibration)
    other = st.sampled_from([None, 0, -1, 3.5, 1e300, 10**400, math.nan, True, "x", "1 2", [], {}])
    place[name] = data.draw(other)
    (bundle / "calibration.json").write_text(json.dumps(calibration))
    manifest = read_sealed(bundle / "manifest.json", bundle=bundle)
    manifest["files"]["calibration.json"] = digest_of_file(bundle / "calibration.json")
    write_sealed(bundle / "manifest.json", manifest)
    try:
        found = cnnx.diagnose(bundle, images=4).findings
    except InputRefused:
        return
    assert found == cnnx.diagnose(bundles["int8"], images=4).findings
