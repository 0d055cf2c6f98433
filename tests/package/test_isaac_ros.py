"""The launch file of Isaac ROS, executed with imitations of launch and launch_ros, and its pipeline."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnx
from cnnx.bundle import Bundle
from tests.inputs.bundles import engine_of
from tests.inputs.packaged import fake_modules, program, rgb_crops, run_graph

# What the nodes declare, in isaac_ros_dnn_inference at 0625147 (4.5) and isaac_ros_image_pipeline at 3b72f6e.
DECLARED = {
    "CropNode": {
        "input_width": int,
        "input_height": int,
        "crop_width": int,
        "crop_height": int,
        "num_blocks": int,
        "crop_mode": str,
        "roi_top_left_x": int,
        "roi_top_left_y": int,
    },
    "ResizeNode": {
        "output_width": int,
        "output_height": int,
        "num_blocks": int,
        "keep_aspect_ratio": bool,
        "encoding_desired": str,
        "disable_padding": bool,
        "input_width": int,
        "input_height": int,
    },
    "ImageFormatConverterNode": {
        "encoding_desired": str,
        "image_width": int,
        "image_height": int,
        "num_blocks": int,
    },
    "DnnImageEncoderNode": {
        "tensor_name": str,
        "input_image_width": int,
        "input_image_height": int,
        "network_image_width": int,
        "network_image_height": int,
        "input_encoding": str,
        "enable_padding": bool,
        "image_mean": list,
        "image_stddev": list,
        "batch_size": int,
    },
    "TensorRTNode": {
        "model_file_path": str,
        "engine_file_path": str,
        "input_tensor_names": list,
        "input_binding_names": list,
        "output_tensor_names": list,
        "output_binding_names": list,
        "force_engine_update": bool,
        "verbose": bool,
        "max_batch_size": int,
        "dla_core": int,
    },
}
TOPICS = {  # plugin -> topics in, topics out
    "CropNode": ({"image", "camera_info"}, {"crop/image", "crop/camera_info"}),
    "ResizeNode": ({"image", "camera_info"}, {"resize/image", "resize/camera_info"}),
    "ImageFormatConverterNode": ({"image_raw"}, {"image"}),
    "DnnImageEncoderNode": ({"image", "camera_info"}, {"tensors"}),
    "TensorRTNode": ({"tensor_pub"}, {"tensor_sub"}),
}
ENCODINGS = {"rgb8": "RGB", "bgr8": "RGB", "mono8": "L"}


@dataclass
class Described:
    """ComposableNode, and every action: their arguments."""

    name: str = ""
    package: str = ""
    plugin: str = ""
    parameters: list[dict[str, Any]] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)


class Substitution:
    def __init__(self, name):
        self.name = name

    def perform(self, context):
        return context[self.name]


def launched(folder, monkeypatch, **given):
    """The nodes that `ros2 launch ./classify.launch.py NAME:=VALUE...` would start, and their names."""

    def action(*_, **arguments):
        return types.SimpleNamespace(**arguments)

    class Declared:
        def __init__(self, name, *, default_value, description):
            assert isinstance(default_value, str) and description
            self.name, self.default = name, default_value

    fake_modules(
        monkeypatch,
        launch={"LaunchDescription": lambda entities: entities},
        launch__actions={
            "DeclareLaunchArgument": Declared,
            "ExecuteProcess": action,
            "OpaqueFunction": action,
        },
        launch__substitutions={"LaunchConfiguration": Substitution},
        launch_ros__actions={"ComposableNodeContainer": action},
        launch_ros__descriptions={"ComposableNode": Described},
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "seen", raising=False)
    *arguments, opaque = program(folder / "classify.launch.py").generate_launch_description()
    monkeypatch.delitem(sys.modules, "seen", raising=False)
    defaults = {argument.name: argument.default for argument in arguments}
    assert set(given) <= set(defaults)
    container, printer = opaque.function({**defaults, **{name: str(value) for name, value in given.items()}})
    assert container.package == "rclcpp_components" and printer.cmd[1].endswith("print_classes.py")
    nodes = container.composable_node_descriptions
    for node in nodes:
        plugin = node.plugin.rpartition("::")[2]
        [parameters] = node.parameters
        for name, value in parameters.items():
            assert isinstance(value, DECLARED[plugin][name]), (plugin, name)
            assert not (DECLARED[plugin][name] is int and isinstance(value, bool))
            if name in ("image_mean", "image_stddev"):
                assert all(isinstance(each, float) for each in value)  # ROS lists are of one type
    check_topics(nodes, given)
    return {node.plugin.rpartition("::")[2]: node.parameters[0] for node in nodes}


def check_topics(nodes, given):
    """Each node reads what the camera or one before it publishes."""
    known = {given.get("image_topic", "image"), given.get("camera_info_topic", "camera_info")}
    for node in nodes:
        read, published = TOPICS[node.plugin.rpartition("::")[2]]
        names = dict(node.remappings)
        assert set(names) <= read | published
        assert {names.get(topic, topic) for topic in read} <= known, node.name
        known |= {names.get(topic, topic) for topic in published}
    assert "tensor_sub" in known


def tensor(found, pixels, encoding):
    """What the nodes make of an image; the encoder scales and pads it, divides by 255, and normalizes."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if crop := found.get("CropNode"):
        assert crop["crop_mode"] == "CENTER" and (crop["input_width"], crop["input_height"]) == image.size
        left = (image.width - crop["crop_width"]) // 2
        top = (image.height - crop["crop_height"]) // 2
        image = image.crop((left, top, left + crop["crop_width"], top + crop["crop_height"]))
    if resize := found.get("ResizeNode"):
        assert not resize["keep_aspect_ratio"] and resize["encoding_desired"] == encoding
        image = image.resize((resize["output_width"], resize["output_height"]), Image.Resampling.BILINEAR)
    encoder = found["DnnImageEncoderNode"]
    wanted = encoder["input_encoding"]
    converter = found.get("ImageFormatConverterNode", {"encoding_desired": encoding})
    assert converter["encoding_desired"] == wanted
    array = np.asarray(image.convert(ENCODINGS[wanted]))
    array = array[..., ::-1] if wanted == "bgr8" else array[..., None] if wanted == "mono8" else array
    wide, high = encoder["network_image_width"], encoder["network_image_height"]
    assert (encoder["input_image_width"], encoder["input_image_height"]) == (array.shape[1], array.shape[0])
    if encoder["enable_padding"]:
        scale = min(wide / array.shape[1], high / array.shape[0])
        size = int(array.shape[1] * scale), int(array.shape[0] * scale)
        small = np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BILINEAR))
        array = np.zeros((high, wide, 3), np.uint8)
        top, left = (high - size[1]) // 2, (wide - size[0]) // 2
        array[top : top + size[1], left : left + size[0]] = small
    assert array.shape[:2] == (high, wide)  # the encoder resizes only where it pads
    mean, deviation = (np.array(encoder[key], np.float32) for key in ("image_mean", "image_stddev"))
    return ((array.astype(np.float32) / 255 - mean) / deviation).transpose(2, 0, 1)[None]


@pytest.fixture
def with_engine(bundles, tmp_path):
    """The package of a bundle, with a file where the engine would be."""

    def make(kind):
        folder = cnnx.write_package(bundles(kind), consumer="isaac-ros", out=tmp_path / kind).folder
        (folder / "model.engine").write_bytes(b"plan")
        return folder

    return make


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr", "letterbox", "assumed"])
def test_the_nodes_give_the_logits_that_cnnx_gives(bundles, photos, with_engine, monkeypatch, kind, encoding):
    folder = with_engine(kind)
    crops, expected = rgb_crops(bundles(kind), photos)
    found = launched(
        folder,
        monkeypatch,
        image_width=crops.shape[2],
        image_height=crops.shape[1],
        encoding=encoding,
        image_topic="/camera/image",
    )
    found.pop("CropNode", None)  # the crops are cut out already
    images = np.concatenate([tensor(found, crop, encoding) for crop in crops])
    logits = run_graph(folder / "model.onnx", np.ascontiguousarray(images, np.float32))
    assert np.array_equal(logits.argmax(1), expected.logits.argmax(1))
    assert np.allclose(logits, expected.logits, atol=0.03 * np.abs(expected.logits).max())
    network = found["TensorRTNode"]
    assert network["force_engine_update"] is False
    assert network["engine_file_path"] == str(folder / "model.engine")
    assert network["max_batch_size"] == Bundle.open(bundles(kind)).manifest.batch[1]
    assert found["DnnImageEncoderNode"]["tensor_name"] == network["input_tensor_names"][0]


def test_frames_are_cropped_to_what_the_network_sees(with_engine, monkeypatch):
    found = launched(with_engine("rgb"), monkeypatch, image_width=1920, image_height=1080)
    assert found["CropNode"]["crop_width"] == round(32 * 1920 / 56)  # resized to 56 x 32, and cut
    assert found["CropNode"]["crop_height"] == 1080
    assert (found["ResizeNode"]["output_width"], found["ResizeNode"]["output_height"]) == (32, 32)
    assert "ImageFormatConverterNode" not in found
    found = launched(with_engine("bgr"), monkeypatch, image_width=1280, image_height=720)
    assert "CropNode" not in found  # squashed
    assert found["ImageFormatConverterNode"] == {
        "image_width": 12,
        "image_height": 12,
        "encoding_desired": "bgr8",
    }
    encoder = found["DnnImageEncoderNode"]
    assert encoder["image_mean"] == pytest.approx([103.939 / 255, 116.779 / 255, 123.68 / 255])
    assert encoder["image_stddev"] == pytest.approx([1 / 255] * 3)


def test_what_is_missing_is_reported_before_anything_starts(with_engine, monkeypatch):
    folder = with_engine("rgb")
    with pytest.raises(RuntimeError, match="set image_width"):
        launched(folder, monkeypatch, image_width=1920)
    (folder / "model.engine").unlink()
    with pytest.raises(
        RuntimeError, match=r"there is no engine .*, run trtexec --onnx=model.onnx --stronglyTyped"
    ):
        launched(folder, monkeypatch, image_width=1920, image_height=1080)


def test_engines_of_the_bundle_are_in_the_package(tmp_path):
    source, plan = tmp_path / "bundle", tmp_path / "plan"
    cnnx.export("small-mobilenet", precision="fp16", out=source, batch=(1, 4), validation_images=32)
    bundle = Bundle.open(source)
    for number, target in enumerate(("sm87", "sm110")):
        plan.write_bytes(target.encode())
        engine = engine_of(bundle, plan, runtime="tensorrt", target=target, identity=f"trt-{target}")
        bundle.add_engine(engine, plan)
        folder = cnnx.write_package(source, consumer="isaac-ros", out=tmp_path / target).folder
        engines = {file.name: file.read_text() for file in folder.glob("*.engine")}
        wanted = (
            {"trt-sm87.engine": "sm87", "trt-sm110.engine": "sm110"} if number else {"model.engine": "sm87"}
        )
        assert engines == wanted


def test_the_printer_shows_the_class(with_engine, monkeypatch):
    folder, lines, subscribed = with_engine("rgb"), [], {}

    class Node:
        def create_subscription(self, kind, topic, callback, depth):
            subscribed[topic] = callback

        def get_logger(self):
            return types.SimpleNamespace(info=lines.append)

    names = json.loads((folder / "network.json").read_text("utf-8"))["classes"]
    logits = np.zeros(len(names), np.float32)
    logits[7] = 20
    tensor = types.SimpleNamespace(name="output_tensor", data=list(logits.tobytes()))
    fake_modules(
        monkeypatch,
        rclpy={
            "init": lambda: None,
            "create_node": {"print_classes": Node()}.__getitem__,
            "spin": lambda node: subscribed["tensor_sub"](types.SimpleNamespace(tensors=[tensor])),
        },
        isaac_ros_tensor_list_interfaces__msg={"TensorList": object},
    )
    program(folder / "print_classes.py").main()
    assert lines == [f"{names[7]} 1.000"]
