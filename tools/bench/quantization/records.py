"""Lists of methods and networks, paths of records, and figures derived from them."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from cnnx.recipe import read_recipe, recipe_names
from cnnx.stats import Interval, Paired
from tools import ROOT, imagenet
from tools.resumable import Record, Records

RECORDS = Records(ROOT / "build" / "quantization")
KEPT = ROOT / "docs" / "data" / "quantization.json"
"""All records in one file, so that a run on another machine or another day goes on from them."""

Cells = dict[str, Record]
"""method -> record, for one network."""

OURS = ("cnnx", "cnnx-auto")
FLOOR = "fp16"
WAYS = {
    "plain": "no quantization: the same images through the FP32 graph",
    FLOOR: "`cnnx export --fp16`: what remains of the difference with no layer in INT8",
    "cnnx": "`cnnx export --int8`",
    "cnnx-auto": "`cnnx export --int8 --method auto`, of 128 further images",
    "ort-max": "onnxruntime.quantization, MinMax",
    "ort-entropy": "onnxruntime.quantization, Entropy at 2,048 bins (its usual 128 leave it one range)",
    "ort-percentile": "onnxruntime.quantization, Percentile, 99.999 at 2,048 bins",
    "modelopt-max": "ModelOpt, max; the rest in FP16, as it does by default",
    "modelopt-entropy": "ModelOpt, entropy, its default; the rest in FP16",
    "modelopt-max-fp32": "ModelOpt, max; the rest in FP32",
    "modelopt-entropy-fp32": "ModelOpt, entropy; the rest in FP32",
}
JUDGED = [way for way in WAYS if way not in ("plain", FLOOR)]
PEERS = [way for way in JUDGED if way not in OURS]

MOST_WORSE = 0.002
"""Allowed accuracy deficit to the best peer, at the lower end of the paired interval."""
LARGE = {"resnet50": 256, "vgg16": 64}
"""Networks measured for cost only -> calibration images; histogram methods of peers get fewer."""
TWINS = ("-hostile", "-parts", "-branches")
TILES = 1_500
"""Number of tiles of photographs to judge on."""
PHOTOGRAPHED = tuple(imagenet.PACKAGES)
"""Networks with ImageNet weights, judged on photographs without labels."""
DEPTHWISE = ("small-mobilenet", "efficientnet-lite")
"""How the names of networks with depthwise convolutions begin."""
BLOCKS = 100
"""Number of blocks of images whose mean divergence a record has, for paired intervals."""
_RESAMPLES = 10_000


def networks() -> list[str]:
    """Networks trained on shapes100, each before its twins, then those judged on photographs."""
    trained = (name for name in recipe_names() if read_recipe(name).validation.data == "shapes100")
    return [*sorted(trained), *PHOTOGRAPHED]


def validation_images(name: str, most: int) -> int:
    """Number of images that a network is judged on."""
    return min(most, TILES) if name in PHOTOGRAPHED else most


def records() -> dict[str, Cells]:
    """network -> method -> record, small networks first, for networks with records."""
    found = {
        name: {way: record for way in WAYS if (record := RECORDS.get(f"{name}/{way}"))}
        for name in (*networks(), *LARGE)
    }
    return {name: cells for name, cells in found.items() if cells}


def gap_to_best(cells: Cells, way: str) -> tuple[float, Interval, str] | None:
    """Accuracy of a cnnx method minus that of the best peer: difference, interval, peer."""
    peers = [peer for peer in PEERS if "accuracy" in cells.get(peer, {})]
    if not peers or "accuracy" not in cells.get(way, {}):
        return None
    best = max(
        peers, key=lambda peer: (cells[peer]["accuracy"], cells[peer]["likeness"]["logit_sqnr_db"] or 0)
    )
    ours, theirs = right_of(cells[way]), right_of(cells[best])
    if len(ours) != len(theirs):
        return None
    counted = (ours & theirs, ~ours & theirs, ours & ~theirs, ~ours & ~theirs)
    paired = Paired(*(int(each.sum()) for each in counted))
    return paired.engine_accuracy - paired.original_accuracy, paired.margin(1.0), best


def goal_of(name: str) -> float:
    """The aim for cnnx's divergence, as a share of the best peer's."""
    return 0.5 if name.endswith(TWINS) or name.startswith(DEPTHWISE) else 0.8


def divergence(cells: Cells, way: str) -> float | None:
    found: float | None = cells.get(way, {}).get("likeness", {}).get("divergence")
    return found


def ratio_to_best(cells: Cells, way: str) -> tuple[float, Interval, str] | None:
    """Divergence of a cnnx method over that of the best peer: ratio, 95 % interval, peer.

    The interval is that of a bootstrap of blocks of images, the same for both.
    """
    found = {peer: value for peer in PEERS if (value := divergence(cells, peer)) is not None}
    if not found or "divergence_by_block" not in cells.get(way, {}):
        return None
    best = min(found, key=lambda peer: found[peer])
    ours, theirs = (np.array(cells[each]["divergence_by_block"]) for each in (way, best))
    drawn = np.random.default_rng(0).integers(len(ours), size=(_RESAMPLES, len(ours)))
    ratios = ours[drawn].mean(axis=1) / theirs[drawn].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(ours.mean() / theirs.mean()), Interval(float(low), float(high)), best


def right_of(record: Record) -> NDArray[np.bool_]:
    """Whether the top-1 class of each image was correct."""
    packed = np.frombuffer(base64.b64decode(record["right"]), np.uint8)
    return np.unpackbits(packed, count=record["images"]).astype(bool)


def sqnr(cells: Cells, way: str) -> float | None:
    found: float | None = cells.get(way, {}).get("likeness", {}).get("logit_sqnr_db")
    return found


def best_sqnr(cells: Cells) -> float | None:
    return max((value for peer in PEERS if (value := sqnr(cells, peer)) is not None), default=None)


def time_of(record: Record) -> float:
    """Wall-clock seconds for large networks, which run alone; CPU seconds otherwise."""
    return float(record["cpu_seconds" if record["images"] else "seconds"])


def ratio_to_plain(cells: Cells, way: str) -> float | None:
    """Time relative to plain inference of the same number of images."""
    plain, record = cells.get("plain", {}), cells[way]
    if "seconds" not in plain:
        return None
    each = time_of(plain) / plain["calibration_images"]
    return time_of(record) / (each * record["calibration_images"])
