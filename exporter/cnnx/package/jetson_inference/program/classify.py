"""Classifies a video or a camera with jetson-inference: python3 classify.py csi://0 [--top 3]."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jetson_inference import imageNet
from jetson_utils import cudaDeviceSynchronize, cudaFromNumpy, cudaToNumpy, videoSource
from PIL import Image
from seen import seen

HERE = Path(__file__).resolve().parent
NETWORK = json.loads((HERE / "network.json").read_text(encoding="utf-8"))


def crop(pixels: Any) -> Any:
    """The network's crop of an RGB image, (height, width, 3): scaled as in training, not as imageNet does."""
    high, wide = NETWORK["size"]
    box, place = seen(
        pixels.shape[1], pixels.shape[0], fit=NETWORK["fit"], resize=NETWORK["resize"], size=NETWORK["size"]
    )
    how = getattr(Image.Resampling, NETWORK["interpolation"].upper())
    part = Image.fromarray(pixels).resize((place[2] - place[0], place[3] - place[1]), how, box=box)
    whole = Image.new("RGB", (wide, high), tuple(NETWORK["fill"]))
    whole.paste(part, place[:2])
    return np.asarray(whole)


def main() -> None:
    """Print the classes of each frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="image, folder, video or camera, such as photo.jpg or csi://0")
    parser.add_argument("--top", type=int, default=1, help="number of classes to print")
    options = parser.parse_args()
    files = {"model": str(HERE / "model.onnx"), "labels": str(HERE / "labels.txt")}
    net = imageNet(**files, input_blob=NETWORK["input"], output_blob=NETWORK["output"])
    source = videoSource(options.source)
    while source.IsStreaming():
        image = source.Capture()
        if image is None:  # a timeout
            continue
        cudaDeviceSynchronize()
        found = net.Classify(cudaFromNumpy(crop(cudaToNumpy(image))), topK=options.top)
        line = ", ".join(f"{net.GetClassDesc(index)} {share:.3f}" for index, share in found)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
