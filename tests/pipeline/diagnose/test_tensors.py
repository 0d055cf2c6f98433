"""`diagnose --target`: where an engine goes wrong, on an imitation of TensorRT and on ONNX Runtime."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import cnnx
from cnnx import runtimes
from cnnx.bundle import Bundle
from cnnx.bundle.sealed import read_sealed, write_sealed
from cnnx.errors import UsageError
from cnnx.graph.inspect import expected_types
from cnnx.graph.load import load_model
from cnnx.graph.trace import Trace
from cnnx.runtimes import BuildRequest
from cnnx.runtimes.evidence import kernels_in
from cnnx.runtimes.trt import runtime as trt
from cnnx.runtimes.trt.runtime import TrtRuntime
from cnnx.runtimes.written import written_by
from cnnx.store.digests import digest_of_file
from tests.doubles.imitated_trt import ImitatedBindings
from tests.inputs.graphs import residual

NEW, OLD = "11.4.0.106", "10.3.0"
FEW = {"color": "rgb", "calibration_data": "digits", "validation_data": "digits", "calibration_images": 16}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, Path]:
    """A residual network with its source, by precision; its file is gone."""
    folder = tmp_path_factory.mktemp("tensors")
    made = {}
    for precision in ("int8", "fp16"):
        file = folder / f"{precision}.onnx"
        onnx.save(residual(), file)
        more = {**FEW, "validation_images": 16, "target": "ort", "with_source": True, "batch": (1, 2)}
        out = folder / precision
        made[precision] = cnnx.export(str(file), precision=precision, out=out, **more).bundle.path
        file.unlink()
    return made


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that installs an imitated TensorRT."""

    def install(release: str, **behaviour: Any) -> None:
        monkeypatch.setattr(trt, "RUNTIME", TrtRuntime(ImitatedBindings(release, **behaviour)))

    return install


def quantized(bundle: Path) -> list[str]:
    """Tensors of a bundle's graph that are quantized."""
    model = onnx.load(bundle / "model.onnx")
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.input[0]
            while name in makers and makers[name].op_type == "Cast":
                name = makers[name].input[0]
            found.append(name)
    return found


@pytest.mark.parametrize("release", [NEW, OLD])
def test_a_planted_wrong_scale_is_named_first_in_20_of_20_trials(
    release: str, bundles: dict[str, Path], tensorrt: Any
) -> None:
    """Any tensor, too large or too small, where it is quantized only or also where it is dequantized."""
    dice, tensors = random.Random(0), quantized(bundles["int8"])
    assert len(tensors) > 5
    missed = []
    for _ in range(20):
        tensor, factor, coarse = dice.choice(tensors), dice.choice((4, 6, 8)), dice.random() < 0.5
        factor = factor if dice.random() < 0.5 else 1 / factor
        tensorrt(release, scales={tensor: factor}, coarse=coarse)
        found = cnnx.diagnose_tensors(bundles["int8"], "tensorrt", images=2).findings
        assert found.how == ("unfused" if release == NEW else "outputs")
        suspects = found.first.suspects if found.first else ()
        # As an output, a sum of two quantized branches shows that one of its two scales is wrong.
        if tensor not in suspects[: 1 if release == NEW else 2]:
            missed.append((tensor, factor, coarse, found.first, found.rows))
    assert not missed


@pytest.mark.parametrize(("release", "internal"), [(NEW, True), (NEW, False), (OLD, True)])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_sound_engine_does_not_fall(
    release: str, internal: bool, precision: str, bundles: dict[str, Path], tensorrt: Any, tmp_path: Path
) -> None:
    release = release if internal else f"{NEW}1"  # what the builder reported is kept with the engine
    tensorrt(release, internal=internal)
    result = cnnx.diagnose_tensors(bundles[precision], "tensorrt", images=4)
    found = result.findings
    assert found.first is None and not any(row.falls for row in found.rows)
    assert (found.images, found.image_set) == (4, "the self-test")
    assert found.reading[0].startswith("No tensor falls by more than 2 dB")
    assert ("extra outputs" in " ".join(found.reading)) == (release == OLD)
    rows = {row.tensor for row in found.rows}
    # A sum is fused with the activation behind it, and its quantization with that.
    assert {"stem.relu", "a.relu1", "a.relu2", "b.relu1", "logits"} <= rows
    stored = {row.tensor for row in found.rows if row.scale_of == row.tensor}
    assert bool(stored) == (precision == "int8" and release != OLD)
    gaps = [abs(row.db - row.expected_db) for row in found.rows if row.db and row.expected_db]
    assert max(gaps) < 1.5 or precision == "fp16"  # FP16 arithmetic rounds differently from FP32's
    record = result.bundle.records()[-1]
    assert record.kind == "tensors" and record.subject.runtime == f"tensorrt {release}"
    assert record.result == result.record.result
    cards = cnnx.write_report(bundles[precision], tmp_path / "r.json").report.cards
    assert not any("tensorrt" in card.subject for card in cards), "the engine is not the bundle's"


def test_values_that_are_not_finite_are_named(bundles: dict[str, Path], tensorrt: Any) -> None:
    tensorrt(NEW, scales={"a.relu1": 0.0})
    found = cnnx.diagnose_tensors(bundles["int8"], "tensorrt", images=2).findings
    assert found.first is not None and "a.relu1" in found.first.suspects
    tensorrt(OLD, scales={"a.relu1": float("nan")}, coarse=True)
    found = cnnx.diagnose_tensors(bundles["int8"], "tensorrt", images=2).findings
    assert found.first is not None and found.first.tensor == "a.conv2"
    assert "a.conv2: not finite" in found.reading[0]
    assert not next(row for row in found.rows if row.falls).finite


def test_the_graph_itself_is_compared_in_onnx_runtime(
    bundles: dict[str, Path], cnnx_command: Any, tmp_path: Path
) -> None:
    pytest.importorskip("altair", reason="images need the extra report")
    bundle = Path(shutil.copytree(bundles["int8"], tmp_path / "b"))
    files = ("--plot", tmp_path / "snr.svg", "--report", tmp_path / "report.html")
    code, out, _ = cnnx_command("diagnose", bundle, "--target", "ort", "--images", 4, *files)
    assert code == 0 and "graph, dB" in out and "the graph computes what the graph says" in out
    drawn, page = (tmp_path / "snr.svg").read_text(), (tmp_path / "report.html").read_text()
    assert drawn.startswith("<svg") and all(f">{name}</text>" in drawn for name in ("stem.relu", "logits"))
    assert "Tensors along the network" in page and "By quantization alone" in page
    code, out, _ = cnnx_command("diagnose", bundle, "--target", "ort", "--images", 4, "--json")
    found = json.loads(out)["result"]["findings"]
    rows = {row["tensor"]: row for row in found["rows"]}
    assert found["how"] == "graph" and found["first"] is None and found["unknown"] == 0
    assert rows["a.conv2"]["nodes"] == ["a.conv2"] and rows["a.conv2"]["quantized"] == ["a.relu1"]
    assert all(row["db"] == row["expected_db"] for row in found["rows"])
    # More than one image is run by one: the figures are those of the whole.
    source, typed = (onnx.load(bundle / name) for name in ("source.onnx", "model.onnx"))
    assert rows["a.conv2"]["db"] == pytest.approx(sqnr(source, typed, bundle, "a.conv2"), abs=1e-3)


def sqnr(source: ModelProto, typed: ModelProto, bundle: Path, tensor: str) -> float:
    """Of a tensor of both graphs, for four images of the self-test, by other means."""
    from cnnx.bundle.manifest import recipe_of
    from cnnx.data.normalize import normalize
    from tests.inputs.graphs import run

    opened = Bundle.open(bundle)
    crops = opened.reference().crops
    images = normalize(crops[np.arange(4) * len(crops) // 4], recipe_of(opened.manifest).preprocessing)
    values = []
    for model, kind in ((source, onnx.TensorProto.FLOAT), (typed, onnx.TensorProto.FLOAT16)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, kind, None))
        values.append(run(model, images)[tensor].astype(np.float64))
    return float(10 * np.log10((values[0] ** 2).sum() / ((values[1] - values[0]) ** 2).sum()))


def test_a_graph_that_is_not_that_of_its_source_is_found(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundles["int8"], tmp_path / "b"))
    model = onnx.load(bundle / "model.onnx")
    quantizer = next(n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "b.relu1")
    scale = next(each for each in model.graph.initializer if each.name == quantizer.input[1])
    values = numpy_helper.to_array(scale)
    scale.CopyFrom(numpy_helper.from_array((values * 8).astype(values.dtype), scale.name))
    onnx.save(model, bundle / "model.onnx")
    manifest = read_sealed(bundle / "manifest.json", bundle=bundle)
    manifest["files"]["model.onnx"] = digest_of_file(bundle / "model.onnx")
    write_sealed(bundle / "manifest.json", manifest)
    found = cnnx.diagnose_tensors(bundle, "ort", images=4).findings
    assert found.first is not None and found.first.suspects == ("b.relu1",)
    assert found.notes == (
        "The bundle's graph is not the one that its source gives here, so that one is expected.",
    )


def test_images_can_be_given(bundles: dict[str, Path], images: Path) -> None:
    found = cnnx.diagnose_tensors(bundles["int8"], "ort", data=images, images=5).findings
    assert (found.images, found.image_set) == (5, images.name)


def test_what_cannot_be_compared_is_refused(
    bundles: dict[str, Path], tiny_bundle: Path, cnnx_command: Any
) -> None:
    code, _, said = cnnx_command("diagnose", bundles["int8"], "--target", "tpu")
    assert code == 2 and "unknown runtime 'tpu'" in said
    code, _, said = cnnx_command("diagnose", bundles["int8"], "--data", "digits")
    assert code == 2 and "--data needs --target" in said
    code, _, said = cnnx_command("diagnose", bundles["int8"], "--target", "ort", "--images", 0)
    assert code == 2 and "invalid --images 0" in said
    # Without its source, the FP32 graph is exported again.
    code, _, said = cnnx_command("diagnose", tiny_bundle, "--target", "ort")
    assert code == 2 and "--model FILE" in said
    model = tiny_bundle.parent / "tiny.onnx"
    found = cnnx.diagnose_tensors(tiny_bundle, "ort", model=model, images=2).findings
    assert [row.tensor for row in found.rows] == ["act", "flat", "logits"]
    with pytest.raises(UsageError, match="invalid --images -1"):
        cnnx.diagnose_tensors(tiny_bundle, "ort", images=-1)


@pytest.mark.skipif(
    runtimes.get("rtx").missing() is not None, reason="needs TensorRT for RTX, which builds without a GPU"
)
def test_tensors_of_a_real_build_are_those_of_the_graph(bundles: dict[str, Path]) -> None:
    """TensorRT for RTX marks unfused tensors, and its log says which kernels write them."""
    rtx, bundle = runtimes.get("rtx"), bundles["int8"]
    typed = load_model(bundle / "model.onnx")
    asked = BuildRequest(
        "int8", expected_types(typed), batch=(1, 2, 2), compute_capabilities=(86,), emits=True
    )
    assert rtx.emits()
    (built,) = rtx.build(bundle / "model.onnx", asked)
    trace = Trace(load_model(bundle / "source.onnx"), typed)
    nodes = [node.name for node in typed.graph.node]
    kernels = kernels_in(built.evidence, nodes)
    shapes = {tensor.name: tensor.shape for kernel in kernels for tensor in kernel.writes}
    found = {}
    for each in written_by(kernels, nodes):
        tensor = trace.result_of(each.nodes, shapes[each.name], each.begun)
        if tensor is not None:
            assert each.layout is not None and len(each.layout.strides) == len(shapes[each.name])
            found[tensor] = trace.scales(tensor, each.nodes)
    assert {"stem.relu", "a.relu1", "a.relu2", "b.relu1", "logits"} <= found.keys()
    # No sum without its bias is taken for a convolution's output.
    assert not {"stem", "a.conv1", "b.conv1"} & found.keys()
    assert found["a.relu1"].keys() == {"a.relu1"}
