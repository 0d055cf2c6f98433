"""The manifest of a bundle and the description of an engine, both invented."""

import dataclasses

from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import ImageList, Manifest, TensorInfo
from cnnx.machine.environment import detect
from cnnx.store.digests import digest_of_file


def manifest(name="net-int8"):
    listed = ImageList("made up", "nobody", 3, "0" * 64)
    return Manifest(
        name=name,
        precision="int8",
        fingerprint="f" * 64,
        recipe={
            "name": "net",
            "title": "Größe",
            "model": {"definition": "lenet5", "classes": 10},
            "input": {"shape": [1, 4, 4]},
            "preprocessing": {"color": "gray", "resize": 4, "mean": [0.5], "std": [0.5]},
        },
        weights={"kind": "file", "origin": "x", "digest": "1" * 64},
        inputs=(TensorInfo("input", "float32", (None, 1, 4, 4), "NCHW"),),
        outputs=(TensorInfo("logits", "float32", (None, 10), "NC"),),
        batch=(1, 4),
        classes=10,
        scales="fp16",
        images={"validation": listed, "calibration": listed},
        layers=({"node": "conv", "op": "Conv", "precision": "int8", "reason": "because", "rule": "r"},),
        warnings=(),
        versions={"cnnx": "0"},
    )


def engine_of(bundle, plan, **changes):
    """A description of the engine in a file."""
    engine = Engine(
        identity="rtx-1-sm86",
        file="model.engine",
        digest=digest_of_file(plan),
        runtime="rtx",
        runtime_version="1.7.1",
        target="sm86",
        precision="int8",
        graph_digest=bundle.manifest.files["model.onnx"],
        layer_types={"conv": "int8"},
        environment=detect().as_dict(),
    )
    return dataclasses.replace(engine, **changes)
