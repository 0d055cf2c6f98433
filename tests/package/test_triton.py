"""Triton's repositories: parsed by the messages of Triton's own client, and fed as Triton feeds them."""

from __future__ import annotations

import os
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

import cnnx
from cnnx.bundle import Bundle
from cnnx.bundle.manifest import recipe_of
from cnnx.data.network_input import network_input
from cnnx.package.triton.config import quoted
from tests.inputs.bundles import engine_of
from tests.inputs.packaged import NAMES, run_graph

ROOT = Path(__file__).parents[2]
LEVELS = {  # ModelState::ModelState in onnxruntime_backend/src/onnxruntime.cc
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@pytest.fixture(scope="module")
def messages():
    """`model_config_pb2` of tritonclient's wheel, which is never installed: it would replace protobuf.

    Only this module is loaded; a newer protobuf reads the code that an older one generated.
    """
    wheels = sorted((ROOT / "build" / "tritonclient").glob("tritonclient-*.whl"))
    if not wheels:
        reason = (
            "tritonclient's wheel was not found in build/tritonclient: `make build/wheels.stamp` fetches it"
        )
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    name = "tritonclient/grpc/model_config_pb2.py"
    module = types.ModuleType("model_config_pb2")
    sys.modules[module.__name__] = module
    with zipfile.ZipFile(wheels[-1]) as wheel, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(wheel.read(name), name, "exec"), vars(module))
    return module


def models(messages, folder):
    """Backend -> its configuration and its folder."""
    found = {}
    for file in folder.glob("*/*/config.pbtxt"):
        parsed = text_format.Parse(file.read_text("utf-8"), messages.ModelConfig())
        assert parsed.name == file.parent.name and parsed.backend == file.parents[1].name
        found[parsed.backend] = parsed, file.parent
    return found


@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr", "pixels", "four", "assumed", "letterbox"])
def test_requests_to_the_onnx_model_give_the_bundles_logits(messages, bundles, tmp_path, kind):
    bundle = Bundle.open(bundles(kind))
    folder = cnnx.write_package(bundle.path, consumer="triton", out=tmp_path / "package").folder
    config, model = models(messages, folder)["onnxruntime"]
    file = model / "1" / config.default_model_filename
    assert file.read_bytes() == bundle.model.read_bytes()
    graph = onnx.load(file).graph
    [image], [output] = config.input, config.output
    assert (image.name, output.name) == (graph.input[0].name, graph.output[0].name)
    assert messages.DataType.Name(image.data_type) == ("TYPE_UINT8" if kind == "pixels" else "TYPE_FP32")
    # Triton: with max_batch_size, dims leave out the batch, which must be dynamic in the graph.
    batch = [-1] if config.max_batch_size else []
    for stated, value in ((image, graph.input[0]), (output, graph.output[0])):
        sizes = [size.dim_value or -1 for size in value.type.tensor_type.shape.dim]
        assert batch + list(stated.dims) == sizes
    largest = bundle.manifest.batch[1]
    assert config.max_batch_size == (largest if kind in ("rgb", "bgr", "pixels", "letterbox") else 0)
    assert config.HasField("dynamic_batching") == (config.max_batch_size > 1)
    for warmup in config.model_warmup:
        [(name, first)] = warmup.inputs.items()
        assert name == image.name and first.random_data and -1 not in first.dims
        assert len(first.dims) == len(image.dims) and 1 <= warmup.batch_size <= max(1, config.max_batch_size)
    labels = (model / output.label_filename).read_text("utf-8").splitlines()
    assert labels == list(bundle.labels or map(str, range(bundle.manifest.classes)))
    recipe, reference = recipe_of(bundle.manifest), bundle.reference()
    images = network_input(reference.crops, recipe.preprocessing, recipe.input_format)
    level = LEVELS[config.optimization.graph.level]
    found = run_graph(file, images, batch=4 if kind == "four" else 1, level=level)
    assert np.array_equal(found.argmax(1), reference.graph.argmax(1))
    assert np.allclose(found, reference.graph, atol=0.01 * np.abs(reference.graph).max())


def test_plans_are_chosen_by_compute_capability(messages, bundles, tmp_path):
    source = tmp_path / "bundle"
    cnnx.export(
        "small-mobilenet", precision="fp16", out=source, batch=(1, 4), validation_images=32
    )  # its own, for its engines
    bundle, plan = Bundle.open(source), tmp_path / "plan"
    wanted = {
        "orin": {"target": "sm87", "batch": (1, 1, 4)},
        "orin-small": {"target": "sm87", "batch": (1, 1, 2)},
        "ada": {"target": "sm89", "batch": (1, 2, 3), "version_compatible": True},
        "thor": {"target": "sm110"},
        "old": {"target": "sm86", "runtime_version": "10.3.0"},
        "dla": {"target": "sm87", "dla_core": 0},
        "rtx": {"target": "sm86", "runtime": "rtx"},
    }
    for identity, changes in wanted.items():
        plan.write_bytes(identity.encode())
        engine = engine_of(
            bundle,
            plan,
            **{"runtime": "tensorrt", "runtime_version": "10.16.0", **changes, "identity": identity},
        )
        bundle.add_engine(engine, plan)
    result = cnnx.write_package(source, consumer="triton", out=tmp_path / "package")
    config, model = models(messages, result.folder)["tensorrt"]
    plans = {key: (model / "1" / file).read_text() for key, file in config.cc_model_filenames.items()}
    assert plans == {"8.7": "orin", "8.9": "ada", "11.0": "thor"}
    assert (model / "1" / config.default_model_filename).is_file()
    assert len(list((model / "1").iterdir())) == 3
    assert config.max_batch_size == 3  # what every engine takes
    assert [(each.kind, each.count) for each in config.instance_group] == [(1, 1)]  # KIND_GPU
    assert config.optimization.cuda.graphs
    assert sorted(warmup.batch_size for warmup in config.model_warmup) == [1, 3]
    notes = " ".join(result.notes)
    assert "DLA" in notes and "10.3.0" in notes and "no TensorRT engine" not in notes
    assert "engines of TensorRT 10.16.0" in (result.folder / "README.md").read_text("utf-8")


def test_an_engine_of_large_batches_is_not_batched_by_triton(messages, bundles, tmp_path):
    folder = cnnx.write_package(bundles("four"), consumer="triton", out=tmp_path / "package").folder
    config, _ = models(messages, folder)["tensorrt"]
    assert config.max_batch_size == 0 and list(config.input[0].dims) == [4, 3, 12, 12]
    assert list(config.output[0].dims) == [4, len(NAMES)]
    assert not config.HasField("dynamic_batching")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_survives_the_text_format(messages, name):
    assert text_format.Parse(f"name: {quoted(name)}", messages.ModelConfig()).name == name
