"""cnnx: classic CNN classifiers from PyTorch to validated FP16 and INT8 engines.

    import cnnx

    result = cnnx.export("lenet5", precision="int8")
    print(result.validation.verdict)
    cnnx.bench(result.bundle.path)

Every name is loaded on first use: `import cnnx` itself imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnx.bundle import Bundle as Bundle
    from cnnx.bundle.manifest import Manifest as Manifest
    from cnnx.errors import CnnxError as CnnxError
    from cnnx.pipeline.benching import bench as bench
    from cnnx.pipeline.caching import cache as cache
    from cnnx.pipeline.calibrate import calibrate as calibrate
    from cnnx.pipeline.diagnosing import diagnose as diagnose
    from cnnx.pipeline.doctor import doctor as doctor
    from cnnx.pipeline.energy import PowerPass as PowerPass
    from cnnx.pipeline.export import export as export
    from cnnx.pipeline.finished import build as build
    from cnnx.pipeline.finished import inspect as inspect
    from cnnx.pipeline.finished import load as load
    from cnnx.pipeline.progress import Event as Event
    from cnnx.pipeline.proof import prove as prove
    from cnnx.pipeline.reporting import write_report as write_report
    from cnnx.pipeline.survey import survey as survey
    from cnnx.pipeline.survey_plan import SurveyPlan as SurveyPlan
    from cnnx.pipeline.validating import validate as validate
    from cnnx.pipeline.zoo import list_networks as list_networks
    from cnnx.pipeline.zoo import show as show
    from cnnx.recipe import Recipe as Recipe
    from cnnx.runtimes import BuildOptions as BuildOptions
    from cnnx.stats import Verdict as Verdict

_HOMES = {
    "BuildOptions": "cnnx.runtimes",
    "Bundle": "cnnx.bundle",
    "CnnxError": "cnnx.errors",
    "Event": "cnnx.pipeline.progress",
    "Manifest": "cnnx.bundle.manifest",
    "PowerPass": "cnnx.pipeline.energy",
    "Recipe": "cnnx.recipe",
    "SurveyPlan": "cnnx.pipeline.survey_plan",
    "Verdict": "cnnx.stats",
    "bench": "cnnx.pipeline.benching",
    "build": "cnnx.pipeline.finished",
    "cache": "cnnx.pipeline.caching",
    "calibrate": "cnnx.pipeline.calibrate",
    "diagnose": "cnnx.pipeline.diagnosing",
    "doctor": "cnnx.pipeline.doctor",
    "export": "cnnx.pipeline.export",
    "inspect": "cnnx.pipeline.finished",
    "list_networks": "cnnx.pipeline.zoo",
    "load": "cnnx.pipeline.finished",
    "prove": "cnnx.pipeline.proof",
    "show": "cnnx.pipeline.zoo",
    "survey": "cnnx.pipeline.survey",
    "validate": "cnnx.pipeline.validating",
    "write_report": "cnnx.pipeline.reporting",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cnnx' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
