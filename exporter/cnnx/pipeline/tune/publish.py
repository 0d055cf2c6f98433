"""Writes the bundle of a tuned placement; the bundle that was tuned stays as it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from cnnx.bundle import MODEL, REFERENCE, Bundle
from cnnx.bundle.manifest import PORTABLE, Manifest
from cnnx.bundle.writing import new_bundle, seal
from cnnx.errors import BuildFailed
from cnnx.machine.environment import installed_version
from cnnx.pipeline.search.repair import LEFT_OUT
from cnnx.pipeline.source import read_source
from cnnx.pipeline.steps.artefacts import LAYERS
from cnnx.pipeline.steps.inference import graph_logits
from cnnx.pipeline.tune.network import TunedNetwork
from cnnx.quant.tuning.device import Placement
from cnnx.store.digests import digest_of, digest_of_file
from cnnx.store.files import scratch_folder

_REASON = f"{LEFT_OUT}: the network is faster, or passes its gates, without Q/DQ here"
_MADE_HERE = (MODEL, REFERENCE)


def write_tuned(
    bundle: Bundle,
    network: TunedNetwork,
    placement: Placement,
    *,
    model: Path,
    used: Sequence[str],
    out: Path,
    force: bool,
) -> Bundle:
    """Write a bundle with the graph that was measured.

    Args:
        bundle: the bundle that was tuned.
        network: its network.
        placement: the chosen placement.
        model: the graph of the engine that was measured.
        used: SHA-256 of the images that the placement was chosen on.
        out: folder of the new bundle.
        force: accept a folder with other files, which are kept.

    Raises:
        BundleError: see `new_bundle`.
        BuildFailed: the recipe of the new bundle does not give the graph that was measured.
    """
    recipe = network.placed(placement, reason=_REASON).recipe
    with scratch_folder() as scratch:
        again = dataclasses.replace(read_source(bundle), recipe=recipe).write_typed(scratch)
        if digest_of_file(again) != digest_of_file(model):
            raise BuildFailed(
                "the recipe of the tuned bundle gives another graph than the one that was measured",
                where=bundle.path,
                hint="please report this with the bundle; nothing was written",
            )
        described = json.loads((scratch / LAYERS).read_text(encoding="utf-8"))
    manifest = dataclasses.replace(
        bundle.manifest,
        recipe=recipe.as_dict(),
        layers=tuple(described["layers"]),
        warnings=tuple(described["warnings"]),
        versions={
            name: installed_version(name) or version for name, version in bundle.manifest.versions.items()
        },
    )
    manifest = dataclasses.replace(manifest, fingerprint=_fingerprint(manifest, model), files={})
    kept = bundle.reference()
    reference = dataclasses.replace(
        kept,
        graph=graph_logits(model, kept.crops, recipe.preprocessing, form=recipe.input_format),
        used=tuple(dict.fromkeys((*kept.used, *used))),
    )
    with new_bundle(out, force=force) as draft:
        shutil.copyfile(model, draft / MODEL)
        reference.save(draft / REFERENCE)
        for name in PORTABLE:
            if name in bundle.manifest.files and name not in _MADE_HERE:
                shutil.copyfile(bundle.path / name, draft / name)
        seal(draft, manifest)
    return Bundle.open(out, verify=False)


def _fingerprint(manifest: Manifest, model: Path) -> str:
    return digest_of({"tuned": manifest.as_dict(), "graph": digest_of_file(model)})
