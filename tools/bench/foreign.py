"""INT8 of networks of timm beside ModelOpt's, both from the same ONNX file: a section of docs/foreign.md.

python -m tools.bench.foreign [--names 'convnext*'] [--again] [--page-only]

Weights are random: the divergence from the original says what quantizing does to such a network, and nothing
about accuracy. On most, one class leads on all images by more than FP32's softmax can tell, so that
divergence would be that of the few images on which two classes come near each other. Logits are therefore
compared as if the last layer gave each class a mean of 0 on these images, and a spread as in trained
networks; its weights have a scale per class, so that this commutes with quantizing. A stopped run resumes
from docs/data/foreign_int8.json. ModelOpt gets a venv of its own under build/. Then write the page with
`python -m tools.check.foreign --page-only`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import tempfile
from pathlib import Path

import onnx

from cnnx.agreement import compare
from cnnx.graph.inspect import int8_share, layers
from cnnx.pipeline.progress import Steps
from cnnx.pipeline.steps.definition import resolve
from cnnx.pipeline.steps.fp32_graph import export_step
from cnnx.pipeline.steps.images import images_by_role
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.pipeline.steps.original import open_original
from cnnx.pipeline.steps.reference import reference_step
from tools import ROOT
from tools.bench.quantization import modelopt
from tools.bench.quantization.cells import Ground, quantize
from tools.networks import export, network
from tools.resumable import Record, Records, asked_for, fill, keep_together, one_by_one

RECORDS = Records(ROOT / "build" / "foreign_int8")
KEPT = ROOT / "docs" / "data" / "foreign_int8.json"
WAYS = ("cnnx", "modelopt-entropy")
_SIDE, _CALIBRATION, _VALIDATION = 64, 64, 256
_SPREAD = 3.0  # of the logits about each class's mean, in nats
NETWORKS = (
    *("convnext_atto", "convnextv2_atto", "densenet121", "dla34", "dpn68b", "edgenext_xx_small"),
    *("efficientnet_lite0", "fastvit_t8", "fbnetc_100", "ghostnet_100", "hardcorenas_a", "hrnet_w18_small"),
    *("mobilenetv2_100", "mobilenetv3_large_100", "mobilevit_xxs", "poolformer_s12", "regnety_002"),
    *("repvgg_a0", "res2net50_14w_8s", "resnest14d", "seresnet50", "vovnet39a"),
)


def compared(name: str) -> Record:
    """Divergence from the original, signal-to-noise ratio and share of the MACs in INT8, by tool."""
    with tempfile.TemporaryDirectory() as folder:
        ground = _ground(name, Path(folder))
        assert ground.validation is not None and ground.logits is not None
        mean = ground.logits.mean(axis=0)
        factor = _SPREAD / (ground.logits - mean).std()
        found: Record = {}
        for way in WAYS:
            out = Path(folder) / f"{way}.onnx"
            try:
                cost = quantize(ground, way, Path(folder), out)
            except RuntimeError as error:
                found[way] = {"failed": str(error)}
                continue
            logits = graph_logits(out, ground.validation.pixels, ground.recipe.preprocessing)
            likeness = compare((ground.logits - mean) * factor, (logits - mean) * factor)
            found[way] = {
                "divergence": likeness.divergence,
                "logit_sqnr_db": likeness.logit_sqnr_db,
                "int8_share": int8_share(layers(onnx.load(out))),
                "seconds": cost["seconds"],
                "versions": cost["versions"],
            }
    return found


def _ground(name: str, folder: Path) -> Ground:
    """The exported file's FP32 graph, generated images, and the original's logits."""
    file = folder / f"{name}.onnx"
    export(network(name, _SIDE), file, side=_SIDE, exporter="legacy", opset=17, free_batch=False)
    recipe = resolve(str(file), trust_recipe=False)
    recipe = dataclasses.replace(
        recipe,
        calibration=dataclasses.replace(recipe.calibration, images=_CALIBRATION),
        validation=dataclasses.replace(recipe.validation, images=_VALIDATION),
    )
    steps = Steps()
    original = open_original(recipe, "pretrained", trust_recipe=False, progress=lambda *_: None)
    graph = export_step(steps, original, batch=(1, 1))
    images = images_by_role(steps, recipe, validates=True, calibrates=True, selects=16)
    assert images.calibration and images.selection and images.validation
    logits = reference_step(steps, original, graph, images.validation, recipe).logits
    return Ground(str(file), recipe, graph, images.calibration, images.selection, images.validation, logits)


def _in_words(record: Record) -> str:
    return ", ".join(f"{way} {record[way].get('divergence', 'failed')}" for way in WAYS)


def main() -> None:
    options = asked_for(__doc__).parse_args()
    if reason := modelopt.missing():
        raise SystemExit(reason)
    wanted = {name: (name,) for name in NETWORKS if fnmatch.fnmatch(name, options.names)}
    with keep_together(RECORDS, KEPT, NETWORKS):
        if not options.page_only:
            fill(RECORDS, one_by_one(wanted, compared), again=options.again, in_words=_in_words)


if __name__ == "__main__":
    main()
