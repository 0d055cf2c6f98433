"""A ROS 2 node that prints the class of each result of the TensorRT node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from isaac_ros_tensor_list_interfaces.msg import TensorList

CLASSES = json.loads((Path(__file__).resolve().parent / "network.json").read_text(encoding="utf-8"))[
    "classes"
]


def described(message: Any) -> str:
    """The most probable class of one message, and its probability."""
    logits = np.frombuffer(bytes(message.tensors[0].data), np.float32).astype(np.float64)
    shares = np.exp(logits - logits.max())
    best = int(logits.argmax())
    return f"{CLASSES[best]} {shares[best] / shares.sum():.3f}"


def main() -> None:
    """Run until interrupted."""
    rclpy.init()
    node = rclpy.create_node("print_classes")
    node.create_subscription(TensorList, "tensor_sub", lambda one: node.get_logger().info(described(one)), 10)
    rclpy.spin(node)


if __name__ == "__main__":
    main()
