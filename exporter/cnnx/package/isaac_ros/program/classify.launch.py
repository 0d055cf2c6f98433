"""Classifies the images of a camera with Isaac ROS: ros2 launch ./classify.launch.py image_width:=1920 ..."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
seen = importlib.import_module("seen").seen

NETWORK = json.loads((HERE / "network.json").read_text(encoding="utf-8"))
ARGUMENTS = {
    "image_width": ("", "width of the camera's images"),
    "image_height": ("", "height of the camera's images"),
    "image_topic": ("image", "topic of the camera's images"),
    "camera_info_topic": ("camera_info", "topic of the camera's calibration, with the images' time stamps"),
    "encoding": ("rgb8", "encoding of the camera's images"),
    "engine_file_path": (str(HERE / "model.engine"), "TensorRT engine"),
}


def image_nodes(width: int, height: int, encoding: str, topics: tuple[str, str]) -> list[ComposableNode]:
    """Nodes from the camera's images to the tensor."""
    high, wide = NETWORK["size"]
    image, info = topics
    found: list[ComposableNode] = []

    def add(name: str, plugin: str, parameters: dict[str, Any], remappings: dict[str, str]) -> None:
        package = "isaac_ros_image_proc" if "image_proc" in plugin else "isaac_ros_dnn_image_encoder"
        found.append(
            ComposableNode(
                name=name,
                package=package,
                plugin=f"nvidia::isaac_ros::{plugin}",
                parameters=[parameters],
                remappings=list(remappings.items()),
            )
        )

    if not NETWORK["pads"]:
        (left, top, right, bottom), place = seen(
            width, height, fit=NETWORK["fit"], resize=NETWORK["resize"], size=(high, wide)
        )
        if place != (0, 0, wide, high):
            raise RuntimeError(
                f"images of {width} x {height} are too small: the network takes {wide} x {high}"
            )
        part = {"crop_width": round(right - left), "crop_height": round(bottom - top)}
        if part != {"crop_width": width, "crop_height": height}:
            parameters = {"input_width": width, "input_height": height, "crop_mode": "CENTER", **part}
            add("crop", "image_proc::CropNode", parameters, {"image": image, "camera_info": info})
            image, info = "crop/image", "crop/camera_info"
        parameters = {"output_width": wide, "output_height": high, "keep_aspect_ratio": False}
        parameters["encoding_desired"] = encoding
        add("resize", "image_proc::ResizeNode", parameters, {"image": image, "camera_info": info})
        image, info, width, height = "resize/image", "resize/camera_info", wide, high
    if encoding != NETWORK["encoding"]:
        parameters = {"image_width": width, "image_height": height, "encoding_desired": NETWORK["encoding"]}
        add(
            "convert",
            "image_proc::ImageFormatConverterNode",
            parameters,
            {"image_raw": image, "image": "converted/image"},
        )
        image = "converted/image"
    parameters = {
        "input_image_width": width,
        "input_image_height": height,
        "network_image_width": wide,
        "network_image_height": high,
        "input_encoding": NETWORK["encoding"],
        "image_mean": NETWORK["mean"],
        "image_stddev": NETWORK["stddev"],
        "enable_padding": NETWORK["pads"],
        "tensor_name": "input_tensor",
    }
    remappings = {"image": image, "camera_info": info, "tensors": "tensor_pub"}
    add("encoder", "dnn_inference::DnnImageEncoderNode", parameters, remappings)
    return found


def network_node(engine: str) -> ComposableNode:
    """The node that runs the engine; it would build a missing one, with other types than the graph's."""
    if not Path(engine).is_file():
        raise RuntimeError(f"there is no engine {engine}: in {HERE}, run {NETWORK['trtexec']}")
    return ComposableNode(
        name="tensor_rt",
        package="isaac_ros_tensor_rt",
        plugin="nvidia::isaac_ros::dnn_inference::TensorRTNode",
        parameters=[
            {
                "model_file_path": str(HERE / "model.onnx"),
                "engine_file_path": engine,
                "force_engine_update": False,  # the node's default, true, builds from the ONNX file
                "input_tensor_names": ["input_tensor"],
                "input_binding_names": [NETWORK["input"]],
                "output_tensor_names": ["output_tensor"],
                "output_binding_names": [NETWORK["output"]],
                "max_batch_size": NETWORK["batch"],
            }
        ],
    )


def nodes(context: Any) -> list[Any]:
    """Everything to start, once the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    if not (given["image_width"].isdecimal() and given["image_height"].isdecimal()):
        raise RuntimeError("set image_width:=... and image_height:=... to the size of the camera's images")
    topics = (given["image_topic"], given["camera_info_topic"])
    size = (int(given["image_width"]), int(given["image_height"]))
    container = ComposableNodeContainer(
        name="classify_container",
        namespace="",
        package="rclcpp_components",
        executable="component_container_mt",
        composable_node_descriptions=[
            *image_nodes(*size, given["encoding"], topics),
            network_node(given["engine_file_path"]),
        ],
        output="screen",
    )
    printer = ExecuteProcess(cmd=["python3", str(HERE / "print_classes.py")], output="screen")
    return [container, printer]


def generate_launch_description() -> LaunchDescription:
    """Called by ros2 launch."""
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])
