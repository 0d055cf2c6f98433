"""What packages are tested with: names, images, and imitations of a device's modules."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import onnxruntime

import cnnx

NAMES = [
    "a;b",
    'with "quotes" \\ and $HOME',
    "näme",
    "night owl",
    "nightbird owl",
    "long " * 150 + "name",
    "#6",
    "[7]",
    "8=x",
    "9",
]
"""Class names of the user's own networks, hard to write in somebody's format."""


def rgb_crops(bundle, photos):
    """What cnnx classifies, as RGB pixels of the network's size, (N, H, W, 3); and what it finds."""
    with cnnx.load(bundle) as net:
        crops = np.stack([net.crop(photo) for photo in photos])
        found = net.predict(photos)
        color = net.bundle.manifest.recipe["preprocessing"]["color"]
    if color == "gray":
        return np.repeat(crops, 3, axis=3), found
    return crops[..., ::-1] if color == "bgr" else crops, found


def run_graph(file, images, *, batch=1, level=None):
    """The first output of a graph for each image; without a level of optimizations, with Q/DQ as written."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    if level is None:
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        settings.graph_optimization_level = level
    session = onnxruntime.InferenceSession(file, settings, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    return np.concatenate([session.run(None, {image.name: part})[0].reshape(len(part), -1) for part in parts])


def fake_modules(monkeypatch, **modules):
    """Modules of a device, for a program that imports them: dotted name with "__" -> its members."""
    for name, members in modules.items():
        parts = name.split("__")
        for end in range(1, len(parts) + 1):
            whole = ".".join(parts[:end])
            if whole not in sys.modules or end == len(parts):
                monkeypatch.setitem(sys.modules, whole, types.ModuleType(whole))
        vars(sys.modules[".".join(parts)]).update(members)


def program(file):
    """A program of a package as a module."""
    spec = importlib.util.spec_from_file_location(file.name.partition(".")[0], file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
