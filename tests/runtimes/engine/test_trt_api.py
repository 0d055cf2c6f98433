"""Every name of TensorRT's bindings that cnnx uses exists in each release that it supports.

trt_api/*.pyi are listings of the real bindings, made from NVIDIA's wheels by tools/check/api_listing.py. The
names that cnnx uses come from its source: `trt.X.Y`, and members of variables whose names give their class.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from tests.doubles.host_cuda import HostCuda
from tests.doubles.imitated_trt import Behaviour, module
from tools import ROOT
from tools.check import api_listing

LISTINGS = {file.stem: file for file in sorted((Path(__file__).parent / "trt_api").glob("*.pyi"))}
TENSORRT = [name for name in LISTINGS if not name.startswith("tensorrt_rtx")]
RTX = [name for name in LISTINGS if name.startswith("tensorrt_rtx")]
# cnnx's modules, and the listings that each must conform to.
# 10.3 cannot mark unfused tensors, and cnnx looks for it.
EMITTING = [name for name in TENSORRT if name != "tensorrt-10.3"]
MODULES = {
    "engine/network": [*TENSORRT, *RTX],
    "engine/session": [*TENSORRT, *RTX],
    "engine/profiler": [*TENSORRT, *RTX],
    "engine/specialization": RTX,
    "engine/emission": [*EMITTING, *RTX],
    "trt/runtime": TENSORRT,
    "trt/build": TENSORRT,
    "trt/dla": TENSORRT,
    "trt/timing_cache": TENSORRT,
    "rtx/runtime": RTX,
}
# Class of a variable or attribute with this name in these modules.
HOLDS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "entry": "ITensor",
    "error": "ParserError",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime_config": "IRuntimeConfig",
    "trt_runtime": "Runtime",
}
RETURNS = {
    "get_timing_cache": "ITimingCache",
    "create_engine_inspector": "EngineInspector",
    "create_runtime_config": "IRuntimeConfig",
}


class Api:
    """A parsed listing: class -> member -> its arguments; None if the member is not a method."""

    def __init__(self, text: str) -> None:
        tree = ast.parse(text)
        self.classes = {
            node.name: {name: arguments for item in node.body for name, arguments in self._member(item)}
            for node in tree.body
            if isinstance(node, ast.ClassDef)
        }
        self.functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}

    @staticmethod
    def _member(item):
        if isinstance(item, ast.FunctionDef):
            yield item.name, item.args
        elif isinstance(item, ast.AnnAssign):
            yield item.target.id, None
        elif isinstance(item, ast.Assign):
            yield item.targets[0].id, None


def holder(node: ast.expr) -> str | None:
    """Last part of an expression such as "self._config" or "library.trt"."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_")
    return node.attr.lstrip("_") if isinstance(node, ast.Attribute) else None


def owner_of(node: ast.expr, api: Api) -> str | None:
    """Class of an expression, or the class that it is."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return RETURNS.get(node.func.attr)
    if isinstance(node, ast.Attribute) and holder(node.value) == "trt" and node.attr in api.classes:
        return node.attr
    return HOLDS.get(holder(node) or "")


def faults(source: str, api: Api) -> tuple[list[str], set[str]]:
    """Names in a source that the API does not have, and all names of the API that it uses."""
    wrong, used = [], set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        if holder(node.value) == "trt":
            used.add(node.attr)
            if node.attr not in api.classes and node.attr not in api.functions:
                wrong.append(f"line {node.lineno}: trt.{node.attr}")
        elif owner := owner_of(node.value, api):
            used.add(f"{owner}.{node.attr}")
            if node.attr not in api.classes[owner]:
                wrong.append(f"line {node.lineno}: {owner}.{node.attr}")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            wrong += bad_call(node, api)
    return wrong, used


def bad_call(node: ast.Call, api: Api) -> list[str]:
    owner = owner_of(node.func.value, api)
    known = api.classes.get(owner or "", {}).get(node.func.attr)
    if known is None:
        return []
    names = [argument.arg for argument in known.args if argument.arg != "self"]
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    given = len(node.args) + len(node.keywords)
    required = len(names) - len(known.defaults)
    unknown = [keyword.arg for keyword in node.keywords if keyword.arg not in names]
    if unknown or (not starred and not required <= given <= len(names)):
        return [f"line {node.lineno}: {owner}.{node.func.attr} takes ({', '.join(names)})"]
    return []


def source_of(name: str) -> str:
    return (ROOT / "exporter/cnnx/runtimes" / f"{name}.py").read_text()


@pytest.mark.parametrize("name, listing", [(name, each) for name, all_ in MODULES.items() for each in all_])
def test_every_name_used_is_in_the_release(name, listing):
    wrong, _ = faults(source_of(name), Api(LISTINGS[listing].read_text()))
    assert wrong == []


def test_the_uses_are_found():
    """A test that finds no names would pass, so check that these are found."""
    used = {
        name: faults(source_of(name), Api(LISTINGS[listings[0]].read_text()))[1]
        for name, listings in MODULES.items()
    }
    assert {
        "BuilderFlag.TF32",
        "Builder.build_serialized_network",
        "IOptimizationProfile.set_shape",
        "ParserError.node_name",
        "INetworkDefinition.num_inputs",
        "OnnxParser",
        "ILogger.INTERNAL_ERROR",
    } <= used["engine/network"]
    assert {
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.get_tensor_profile_shape",
        "Runtime.DLA_core",
        "nptype",
    } <= used["engine/session"]
    assert {
        "IBuilderConfig.set_memory_pool_limit",
        "EngineInspector.get_engine_information",
        "LayerInformationFormat.JSON",
    } <= used["trt/build"]
    assert {"IBuilderConfig.can_run_on_DLA", "Builder.num_DLA_cores", "ILayer.name"} <= used["trt/dla"]
    assert {
        "DynamicShapesKernelSpecializationStrategy.EAGER",
        "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy",
        "IExecutionContext.is_stream_capturable",
    } <= used["engine/specialization"]
    assert {
        "INetworkDefinition.mark_unfused_tensors_as_debug_tensors",
        "IExecutionContext.set_debug_listener",
        "IExecutionContext.unfused_tensors_debug_state",
        "IDebugListener",
        "TensorLocation.HOST",
    } <= used["engine/emission"]
    assert {"IBuilderConfig.set_timing_cache", "ITimingCache.serialize"} <= used["trt/timing_cache"]
    assert {"IBuilderConfig.set_compute_capability", "ComputeCapability"} <= used["rtx/runtime"]


@pytest.mark.parametrize(
    "source, listing, wrong",
    [
        ("config.set_memory_pool_limits(pool, 3)", "tensorrt-10.3", "IBuilderConfig.set_memory_pool_limits"),
        ("config.set_flag(trt.BuilderFlag.FP16)", "tensorrt-11.4", "BuilderFlag.FP16"),
        ("self._trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "tensorrt-11.4", "EXPLICIT_BATCH"),
        (
            "trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
            "tensorrt-10.3",
            "SAME_COMPUTE_CAPABILITY",
        ),
        ("self._engine.device_memory_size", "tensorrt-11.4", "ICudaEngine.device_memory_size"),
        ("config.get_timing_cache().save()", "tensorrt-10.16", "ITimingCache.save"),
        ("config.set_timing_cache(cache, ignore=True)", "tensorrt-10.3", "takes (cache, ignore_mismatch)"),
        ("context.set_input_shape(name)", "tensorrt-10.3", "takes (name, shape)"),
        ("trt.Bilder(log)", "tensorrt-10.3", "trt.Bilder"),
    ],
)
def test_a_name_that_is_missing_is_caught(source, listing, wrong):
    (found,) = faults(source, Api(LISTINGS[listing].read_text()))[0]
    assert wrong in found


@pytest.mark.parametrize("release, listing", [("10.3.0", "tensorrt-10.3"), ("11.4.0.106", "tensorrt-11.4")])
def test_the_imitation_has_only_what_the_release_has(release, listing):
    api = Api(LISTINGS[listing].read_text())
    # Where tests read what was set.
    ours = {"IBuilderConfig": {"cache", "limits", "profiles"}, "INetworkDefinition": {"emits"}}
    for name, value in vars(module(release, HostCuda(), Behaviour())).items():
        if not isinstance(value, type):
            continue
        public = {member for member in vars(value) if not member.startswith("_")} - ours.get(name, set())
        assert public <= set(api.classes[name]), name


def bindings() -> dict[str, Path]:
    """Real bindings: installed packages, and wheels in the folder given by CNNX_TENSORRT_WHEELS."""
    found = {}
    for package in ("tensorrt_bindings", "tensorrt_rtx_bindings"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found[package] = Path(spec.origin).parents[1]
    folder = os.environ.get("CNNX_TENSORRT_WHEELS")
    found |= (
        {wheel.name: wheel for wheel in sorted(Path(folder).glob("tensorrt_*bindings-*.whl"))}
        if folder
        else {}
    )
    return found


@pytest.mark.parametrize("name", [*bindings(), "none"])
def test_the_real_bindings_have_every_name(name):
    """The import uses empty stubs of NVIDIA's libraries, so it needs no GPU and no driver."""
    if name == "none":
        if not any("tensorrt_rtx" not in found for found in bindings()):
            pytest.skip(
                "TensorRT's bindings were not found: set CNNX_TENSORRT_WHEELS to a folder with their wheels, "
                "as `make test` does; the listings in trt_api are tested instead"
            )
        return
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (cc) for the stubs")
    rtx = "tensorrt_rtx" in name
    committed = LISTINGS[(RTX if rtx else TENSORRT)[-1]]
    fresh = api_listing.listing(bindings()[name], api_listing.names_in(committed.read_text()))
    api = Api(fresh)
    old = "10.3.0" in fresh.splitlines()[0]
    for ours, listings in MODULES.items():
        if (RTX[0] if rtx else "tensorrt-10.3" if old else "tensorrt-10.16") in listings:
            assert faults(source_of(ours), api)[0] == [], ours
    # A committed listing of the same bindings must be identical.
    head = fresh.splitlines()[0]
    same = [file.read_text() for file in LISTINGS.values() if file.read_text().startswith(head + "\n")]
    assert same in ([], [fresh])
