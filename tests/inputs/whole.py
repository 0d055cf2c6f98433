"""A bundle with an engine and a record of every kind."""

import shutil

import cnnx
from cnnx.bundle import Bundle
from cnnx.machine.environment import detect
from cnnx.pipeline.target import open_subject
from cnnx.record import Record
from tests.doubles.rehearsal import rehearsal
from tests.inputs.bundles import engine_of

LIKENESS = {
    "divergence": 0.01, "top1_agreement": 1.0, "top1_in_top5": 1.0, "top5_agreement": 0.9,
    "logit_sqnr_db": 30.0,
}  # fmt: skip
GUESS = {"index": 3, "name": "three", "probability": 0.9}
DIAGNOSIS = {
    "images": 8,
    "image_set": "digits",
    "floor": LIKENESS,
    "whole": LIKENESS,
    "layers": [
        {
            "layer": "conv", "op": "Conv", "place": 0, "multiply_adds": 100, "tensor": "input",
            "likeness": {**LIKENESS, "divergence": None}, "flips": 1, "share": 1.0, "weights_lost": 0.0,
        }
    ],
    "others": [{"layer": "fc", "op": "Gemm", "place": 1, "data_type": "fp16", "reason": "small"}],
    "tensors": [
        {
            "tensor": "input", "read_by": ["conv"], "amax": 1.0, "maximum": 1.0, "saturated": 0.0,
            "underflow": 0.0, "body": 0.5, "channels": 1, "dead_channels": 0, "middle_steps": 127.0,
        }
    ],
    "flips": [{"image": "a", "label": 3, "original": [GUESS], "int8": [GUESS]}],
    "reading": ["It is well."],
    "notes": [],
}  # fmt: skip


TENSORS = {
    "images": 8,
    "image_set": "digits",
    "how": "unfused",
    "rows": [
        {
            "tensor": "relu1", "nodes": ["conv", "relu1"], "quantized": ["input"], "scale_of": "relu1",
            "db": 30.0, "expected_db": 31.0, "own_db": None, "finite": True, "gain": None, "falls": False,
        }
    ],
    "first": {"tensor": "relu1", "nodes": ["conv"], "suspects": ["relu1"]},
    "unknown": 1,
    "reading": ["It is well."],
    "notes": [],
}  # fmt: skip
INTERVAL = {"low": 0.7, "high": 0.9}
PLACEMENT = {
    "number": 1, "roles": ["chosen"], "layers": 1, "shortcuts": 1, "share": 0.5, "ratio": 0.8,
    "interval": INTERVAL, "likeness": LIKENESS, "passes": True, "raced": True, "front": True, "refused": "",
}  # fmt: skip
TUNING = {
    "batch": 1,
    "base": "fp16",
    "images": 8,
    "image_set": "digits",
    "placements": [
        {**PLACEMENT, "number": 0, "roles": ["fp16"]},
        PLACEMENT,
        {**PLACEMENT, "number": 2, "roles": ["given"], "ratio": None, "interval": None, "refused": "no"},
    ],
    "sites": [{"name": "conv", "shortcut": False, "kind": 0, "given": True, "chosen": True}],
    "kinds": 1,
    "judged": 3,
    "against_given": INTERVAL,
    "engine": LIKENESS,
    "expected_regret": 0.001,
    "ended": "the budget was used",
    "seconds": 60.0,
    "budget_seconds": 120.0,
    "notes": ["A note."],
}  # fmt: skip


def make_whole(bundle, path):
    """Copy a bundle, and add an engine and records to the copy."""
    shutil.copytree(bundle, path)
    cnnx.validate(path, target="ort")
    loads = {"streams": 1, "fps": 50, "soak": 0.3}
    cnnx.bench(path, target="ort", seconds=0.02, percentile=50, power=rehearsal(), layers=True, **loads)
    opened = Bundle.open(path)
    subject = open_subject(opened, "ort").subject
    opened.add_record(Record("diagnosis", subject, detect().as_dict(), DIAGNOSIS))
    opened.add_record(Record("tensors", subject, detect().as_dict(), TENSORS))
    opened.add_record(Record("tuning", subject, detect().as_dict(), TUNING))
    plan = path.parent / "plan"
    plan.write_bytes(bytes(64))
    opened.add_engine(engine_of(opened, plan, batch=(1, 1, 1)), plan)
    return path
