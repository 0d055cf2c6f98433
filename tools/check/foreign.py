"""Take networks of timm and torchvision the whole way to an RTX build, and write docs/foreign.md.

python -m tools.check.foreign [--names 'convnext*'] [--again] [--page-only]

Each network is exported by both of PyTorch's exporters, with operator sets and batches in turn. A stopped run
resumes from docs/data/foreign.json. Needs the [export], [cpu] and [rtx] extras, and `pip install --no-deps
timm torchvision`. The whole run takes about three hours on two cores.
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from tools import ROOT
from tools.bench.foreign import NETWORKS
from tools.markdown import table, write_page
from tools.networks import export, network
from tools.resumable import Record, Records, asked_for, fill, keep_together, one_by_one

RECORDS = Records(ROOT / "build" / "foreign")
KEPT = ROOT / "docs" / "data" / "foreign.json"
COMPARED = ROOT / "docs" / "data" / "foreign_int8.json"
PAGE = ROOT / "docs" / "foreign.md"
IMAGES, DIAGNOSED = 24, 12  # images, and files to diagnose
_LIMIT_S = 1200
_DONE = (0, 1, 6)  # a verdict on random weights decides nothing

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "AlexNet, VGG, SqueezeNet": ("tv:alexnet", "tv:vgg11_bn", "tv:squeezenet1_1"),
    "Inception, GoogLeNet": ("tv:googlenet", "inception_v3", "xception41"),
    "ResNet and kin": (
        *(
            "resnet18",
            "resnet50",
            "resnext50_32x4d",
            "seresnet50",
            "skresnet18",
            "ecaresnet26t",
            "gcresnet33ts",
        ),
        *(
            "resnest14d",
            "res2net50_14w_8s",
            "dpn68b",
            "densenet121",
            "dla34",
            "hrnet_w18_small",
            "selecsls42b",
        ),
        *("cspresnet50", "cspdarknet53", "vovnet39a", "tresnet_m", "resnetv2_50", "nfnet_l0", "eca_nfnet_l0"),
    ),
    "RegNet, RepVGG": (
        "regnetx_002",
        "regnety_002",
        "repvgg_a0",
        "mobileone_s0",
        "rexnet_100",
        "hardcorenas_a",
    ),
    "MobileNet and kin": (
        *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"),
        *("mobilenetv4_conv_small", "mnasnet_100", "tv:shufflenet_v2_x0_5", "ghostnet_100", "ghostnetv2_100"),
        *("lcnet_050", "tinynet_e", "spnasnet_100", "fbnetc_100", "mixnet_s", "semnasnet_100"),
    ),
    "EfficientNet": ("efficientnet_b0", "tf_efficientnet_b0", "efficientnet_lite0", "efficientnetv2_rw_t"),
    "ConvNeXt and kin": (
        "convnext_atto",
        "convnextv2_atto",
        "edgenext_xx_small",
        "poolformer_s12",
        "inception_next_atto",
    ),
    "Hybrids": (
        *("fastvit_t8", "coatnet_nano_rw_224", "mobilevit_xxs", "mobilevitv2_050", "levit_128s"),
        *("efficientformer_l1", "repvit_m0_9", "starnet_s1"),
    ),
    "Transformers": ("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s32_224"),
}
SIDES = {
    # Smaller feature maps than the adaptive pooling asks for, PyTorch's exporters cannot export.
    "tv:alexnet": 224,
    "tv:vgg11_bn": 224,
    "tv:googlenet": 96,
    "inception_v3": 96,
    "xception41": 96,
    "coatnet_nano_rw_224": 64,
}
# Of the onnx package: IR 3, operator set 9, all weights equal. They prove parsing, types and building only.
LIGHT = (
    *("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"),
    *("vgg19", "zfnet512"),
)
_OPSETS = {"legacy": (17, 13, 11), "dynamo": (None, 18, 20)}


def cells() -> dict[str, tuple[str, str, int | None, bool, bool]]:
    """Name of a cell -> network, exporter, operator set, whether the batch is free, whether to diagnose.

    Every pair of exporter and operator set occurs with both kinds of batch. The order is mixed, so that a
    stopped run has seen every family.
    """
    found = {}
    for index, name in enumerate(itertools.chain(*FAMILIES.values())):
        for exporter in ("legacy", "dynamo"):
            opset = _OPSETS[exporter][index % 3]
            free = (index // 3 + (exporter == "dynamo")) % 2 == 0
            kind = f"{exporter}{opset or ''}{'-free' if free else '-1'}"
            found[f"{name.removeprefix('tv:')}-{kind}"] = name, exporter, opset, free
    found |= {f"light_{name}": (f"light_{name}", "onnx", 9, False) for name in LIGHT}
    # Those with large images last.
    mixed = sorted(found, key=lambda cell: (SIDES.get(found[cell][0], 64) > 96, zlib.crc32(cell.encode())))
    return {cell: (*found[cell], index < DIAGNOSED) for index, cell in enumerate(mixed)}


def light_graph(name: str) -> Path:
    """A file of the onnx package."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx"


def taken(name: str, exporter: str, opset: int | None, free: bool, diagnoses: bool) -> Record:
    """What became of one file."""
    started, side = time.monotonic(), SIDES.get(name, 64)
    record: Record = {
        "network": name,
        "exporter": exporter,
        "opset": opset,
        "free": free,
        "versions": {each: version(each) for each in ("cnnx", "timm", "torch", "torchvision")},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        try:
            if exporter == "onnx":
                shutil.copy(light_graph(name), file)
            else:
                export(network(name, side), file, side=side, exporter=exporter, opset=opset, free_batch=free)
        except Exception as error:  # PyTorch's exporters raise nearly anything
            return {**record, "not exported": (str(error) or type(error).__name__).splitlines()[0][:200]}
        record["show"] = _cnnx(folder, "show", file)[0]
        for precision in ("fp16", "int8"):
            record[precision] = _exported(folder, file, precision)
        if diagnoses and record["int8"]["code"] in _DONE:
            options = ("--images", str(IMAGES), "--model", str(file))
            record["diagnose"] = _cnnx(folder, "diagnose", Path(folder) / "int8", *options)[0]
    return {**record, "seconds": time.monotonic() - started}


def _exported(folder: str, file: Path, precision: str) -> Record:
    """What an export and `inspect` of its bundle gave."""
    out = Path(folder) / precision
    few = ("--calibration-images", str(IMAGES), "--validation-images", str(IMAGES))
    target = ("--target", "rtx", "--sm", "86")
    code, said = _cnnx(folder, "export", file, f"--{precision}", *few, *target, "--out", out)
    found: Record = {"code": code}
    if code in _DONE:
        result = said["result"]
        found["inspect"] = _cnnx(folder, "inspect", out)[0]
        found["int8_share"] = result["int8_share"]
        found["notes"] = [note for note in result["notes"] if "MACs" in note]
        found["logit_sqnr_db"] = result["validation"]["logit_sqnr_db"]
    else:
        found |= {key: said.get("error", {}).get(key) for key in ("what", "hint")}
    return found


def _cnnx(folder: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "cnnx", *map(str, arguments), "--json"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return 124, {"error": {"what": f"it took more than {_LIMIT_S} s", "hint": None}}
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, {"error": {"what": done.stderr.strip()[-200:], "hint": None}}


def page(records: Mapping[str, Record]) -> str:
    """The page: a summary, and a row per file."""
    made = {cell: record for cell, record in records.items() if "fp16" in record}
    codes = Counter(record[precision]["code"] for record in made.values() for precision in ("fp16", "int8"))
    both = sum(all(record[p]["code"] in _DONE for p in ("fp16", "int8")) for record in made.values())
    rows = [_row(cell, record) for cell, record in records.items()]
    untried = len(cells()) - len(records)
    listed = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
    lines = [
        "# Networks of timm and torchvision",
        "",
        "Made by `python -m tools.check.foreign`: networks with random weights, exported by PyTorch's two "
        f"exporters, then `cnnx export` with {IMAGES} generated images to FP16 and INT8 builds of TensorRT "
        f"for RTX (SM 86), `show`, `inspect`, and for {DIAGNOSED} of the files `diagnose`. No GPU ran an "
        "engine. Random weights say nothing about accuracy.",
        "",
        f"Of {len(made)} files, {both} succeed in both precisions. Exit codes of the exports: {listed}."
        + (f" {untried} files have not been tried yet." if untried else ""),
        "",
        "A name ends with the exporter, its operator set unless that is the default, and the batch.",
        "",
        "| file | FP16 | INT8 | MACs in INT8 | other commands | seconds |",
        "|---|---|---|---|---|---:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def beside_modelopt(compared: Mapping[str, Record]) -> str:
    """The section that tools.bench.foreign measures: a row per network, or nothing."""
    if not compared:
        return ""
    pairs = {name: (record["cnnx"], record["modelopt-entropy"]) for name, record in compared.items()}
    ratios = [a["divergence"] / b["divergence"] for a, b in pairs.values() if "failed" not in {*a, *b}]
    forms = [(key, form, each) for key, form in _FIGURES for each in (0, 1)]
    rows = [
        (name, *(f"{both[each][key]:{form}}" if key in both[each] else "failed" for key, form, each in forms))
        for name, both in sorted(pairs.items())
    ]
    columns = [f"{what}, {tool}" for what in ("nats", "dB", "in INT8") for tool in ("cnnx", "ModelOpt")]
    no_worse = sum(ratio <= 1 for ratio in ratios)
    waiting = ", ".join(name for name in NETWORKS if name not in compared)
    return _BESIDE.format(
        waiting=f"\nNot measured in this way yet: {waiting}.\n" if waiting else "",
        no_worse=no_worse,
        of=len(ratios),
        median=statistics.median(ratios),
        table=table(["network", *columns], rows),
    )


_BESIDE = """
## INT8 beside ModelOpt

Made by `python -m tools.bench.foreign`: both quantize the same file with 64 generated images, cnnx as
`export --int8` does, ModelOpt as it does by default. Divergence from the original (nats) and
signal-to-noise ratio of the logits (dB) are those of ONNX Runtime on 256 other images. cnnx's divergence
is at most ModelOpt's on {no_worse} of {of} networks; the median of the ratios is {median:.2f}. These
graphs were made before activations were centered ([Decisions](decisions.md)).

With random weights, one class leads on nearly all images, so that the divergence would be that of the few
images on which two classes come near each other. Both tools' logits are therefore compared as if the last
layer gave each class a mean of 0 and a spread of 3 nats, as in trained networks.

{table}
{waiting}"""
_FIGURES = (("divergence", ".2g"), ("logit_sqnr_db", ".1f"), ("int8_share", ".1%"))


def _row(cell: str, record: Record) -> str:
    if "fp16" not in record:
        return f"| {cell} | PyTorch does not export it: {_cut(record['not exported'])} | | | | |"
    share, notes = record["int8"].get("int8_share"), record["int8"].get("notes") or [""]
    percent = "" if share is None else f"{share:.1%}"
    if reason := notes[0].partition("main reason for the rest: ")[2]:
        percent += f": {_cut(reason)}"
    others = {
        "show": record["show"],
        **{f"inspect {p}": record[p].get("inspect") for p in ("fp16", "int8")},
        "diagnose": record.get("diagnose"),
    }
    failed = [f"{name} {code}" for name, code in others.items() if code]
    outcomes = " | ".join(_outcome(record[precision]) for precision in ("fp16", "int8"))
    said = ", ".join(failed) or "work"
    return f"| {cell} | {outcomes} | {percent} | {said} | {record['seconds']:.0f} |"


def _outcome(found: Record) -> str:
    return "works" if found["code"] in _DONE else f"exit {found['code']}: {_cut(found.get('what') or '')}"


def _cut(text: str) -> str:
    text = " ".join(text.split()).replace("|", "/")
    return text if len(text) < 160 else f"{text[:160]} ..."


def _in_words(record: Record) -> str:
    return f"fp16 {record['fp16']['code']}, int8 {record['int8']['code']}" if "fp16" in record else "no file"


def main(arguments: Iterable[str] | None = None) -> None:
    options = asked_for(__doc__).parse_args(None if arguments is None else list(arguments))
    every = cells()
    wanted = {cell: value for cell, value in every.items() if fnmatch.fnmatch(value[0], options.names)}
    with keep_together(RECORDS, KEPT, every):
        if not options.page_only:
            fill(RECORDS, one_by_one(wanted, taken), again=options.again, in_words=_in_words)
    compared = json.loads(COMPARED.read_text(encoding="utf-8")) if COMPARED.is_file() else {}
    write_page(PAGE, page(RECORDS.among(sorted(every))) + beside_modelopt(compared))


if __name__ == "__main__":
    main()
