"""cnnx exports classic CNN classifiers from PyTorch to validated FP16 and INT8 engines.

    import cnnx

    result = cnnx.export("lenet5", precision="int8")
    print(result.validation.verdict)
    cnnx.bench(result.bundle.path)

Names are loaded on first use, so `import cnnx` imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnx.bundle import Bundle as Bundle
    from cnnx.bundle.manifest import Manifest as Manifest
    from cnnx.errors import CnnxError as CnnxError
    from cnnx.options.bundles import BuildOptions as BuildOptions
    from cnnx.options.bundles import SurveyPlan as SurveyPlan
    from cnnx.options.networks import CalibrateOptions as CalibrateOptions
    from cnnx.options.networks import ExportOptions as ExportOptions
    from cnnx.pipeline.bench.bench import bench as bench
    from cnnx.pipeline.bench.energy import PowerPass as PowerPass
    from cnnx.pipeline.bom.bom import bom as bom
    from cnnx.pipeline.build import build as build
    from cnnx.pipeline.cache import cache as cache
    from cnnx.pipeline.classify.classifier import load as load
    from cnnx.pipeline.classify.classify import classify as classify
    from cnnx.pipeline.compare.compare import compare as compare
    from cnnx.pipeline.diagnose.diagnose import diagnose as diagnose
    from cnnx.pipeline.diagnose.tensors import diagnose_tensors as diagnose_tensors
    from cnnx.pipeline.doctor.doctor import doctor as doctor
    from cnnx.pipeline.export.calibrate import calibrate as calibrate
    from cnnx.pipeline.export.export import export as export
    from cnnx.pipeline.fleet.calibrate import fleet_calibrate as fleet_calibrate
    from cnnx.pipeline.fleet.cluster.down import fleet_down as fleet_down
    from cnnx.pipeline.fleet.cluster.join import fleet_join as fleet_join
    from cnnx.pipeline.fleet.cluster.status import fleet_status as fleet_status
    from cnnx.pipeline.fleet.cluster.up import fleet_up as fleet_up
    from cnnx.pipeline.fleet.survey import fleet_survey as fleet_survey
    from cnnx.pipeline.fleet.validate import fleet_validate as fleet_validate
    from cnnx.pipeline.init import init as init
    from cnnx.pipeline.inspect import inspect as inspect
    from cnnx.pipeline.networks import list_networks as list_networks
    from cnnx.pipeline.networks import show as show
    from cnnx.pipeline.package import write_package as write_package
    from cnnx.pipeline.preflight.preflight import preflight as preflight
    from cnnx.pipeline.progress import ProgressEvent as ProgressEvent
    from cnnx.pipeline.report.report import write_report as write_report
    from cnnx.pipeline.sign.sign import sign as sign
    from cnnx.pipeline.sign.verify import verify as verify
    from cnnx.pipeline.survey.proof import prove as prove
    from cnnx.pipeline.survey.report import write_survey_report as write_survey_report
    from cnnx.pipeline.survey.survey import survey as survey
    from cnnx.pipeline.tune.tune import tune as tune
    from cnnx.pipeline.validate import validate as validate
    from cnnx.recipe import Recipe as Recipe
    from cnnx.stats import Verdict as Verdict

_MODULES = {
    "BuildOptions": "cnnx.options.bundles",
    "CalibrateOptions": "cnnx.options.networks",
    "Bundle": "cnnx.bundle",
    "CnnxError": "cnnx.errors",
    "ExportOptions": "cnnx.options.networks",
    "ProgressEvent": "cnnx.pipeline.progress",
    "Manifest": "cnnx.bundle.manifest",
    "PowerPass": "cnnx.pipeline.bench.energy",
    "Recipe": "cnnx.recipe",
    "SurveyPlan": "cnnx.options.bundles",
    "Verdict": "cnnx.stats",
    "bench": "cnnx.pipeline.bench.bench",
    "bom": "cnnx.pipeline.bom.bom",
    "build": "cnnx.pipeline.build",
    "cache": "cnnx.pipeline.cache",
    "calibrate": "cnnx.pipeline.export.calibrate",
    "classify": "cnnx.pipeline.classify.classify",
    "compare": "cnnx.pipeline.compare.compare",
    "diagnose": "cnnx.pipeline.diagnose.diagnose",
    "diagnose_tensors": "cnnx.pipeline.diagnose.tensors",
    "doctor": "cnnx.pipeline.doctor.doctor",
    "export": "cnnx.pipeline.export.export",
    "fleet_calibrate": "cnnx.pipeline.fleet.calibrate",
    "fleet_survey": "cnnx.pipeline.fleet.survey",
    "fleet_validate": "cnnx.pipeline.fleet.validate",
    "fleet_down": "cnnx.pipeline.fleet.cluster.down",
    "fleet_join": "cnnx.pipeline.fleet.cluster.join",
    "fleet_status": "cnnx.pipeline.fleet.cluster.status",
    "fleet_up": "cnnx.pipeline.fleet.cluster.up",
    "init": "cnnx.pipeline.init",
    "inspect": "cnnx.pipeline.inspect",
    "list_networks": "cnnx.pipeline.networks",
    "load": "cnnx.pipeline.classify.classifier",
    "preflight": "cnnx.pipeline.preflight.preflight",
    "prove": "cnnx.pipeline.survey.proof",
    "show": "cnnx.pipeline.networks",
    "sign": "cnnx.pipeline.sign.sign",
    "survey": "cnnx.pipeline.survey.survey",
    "tune": "cnnx.pipeline.tune.tune",
    "validate": "cnnx.pipeline.validate",
    "verify": "cnnx.pipeline.sign.verify",
    "write_package": "cnnx.pipeline.package",
    "write_report": "cnnx.pipeline.report.report",
    "write_survey_report": "cnnx.pipeline.survey.report",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("cnnx")
    if name not in _MODULES:
        raise AttributeError(f"module 'cnnx' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), "__version__", *_MODULES]
