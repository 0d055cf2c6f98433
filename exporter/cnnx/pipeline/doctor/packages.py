"""Packages that conflict: which, why, and the command that fixes it."""

from __future__ import annotations

from dataclasses import dataclass

from cnnx import runtimes
from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.machine.environment import Environment
from cnnx.machine.packages import TENSORRT_WHEELS, Package, Wheels
from cnnx.runtimes.engine.network import release_of


@dataclass(frozen=True, slots=True)
class Combination:
    """A wrong combination of packages.

    Attributes:
        what: is installed.
        why: it hurts.
        hint: the command.
    """

    what: str
    why: str
    hint: str


def wrong_combinations(environment: Environment, wheels: Wheels) -> tuple[Combination, ...]:
    """All that are known of, on this machine.

    Args:
        environment: with TensorRT's parts.
        wheels: finds a Python distribution.
    """
    found = [
        _two_onnxruntimes(environment, wheels),
        _wheel_over_jetpack(environment),
        *(_without_libraries(environment, suffix) for suffix in ("-cu13", "-cu12", "")),
        *map(_unequal, runtimes.NAMES),
    ]
    return tuple(one for one in found if one is not None)


def _two_onnxruntimes(environment: Environment, wheels: Wheels) -> Combination | None:
    plain, gpu = wheels("onnxruntime"), wheels("onnxruntime-gpu")
    if plain is None or gpu is None:
        return None
    stays, goes = (gpu, plain) if environment.gpu or environment.l4t else (plain, gpu)
    return Combination(
        f"onnxruntime {plain.version} and onnxruntime-gpu {gpu.version} in one environment",
        "both are the module onnxruntime: the one installed last overwrote the other's files, so which "
        "runs, and whether on the GPU, is chance",
        # Taking one out takes files of both away.
        f"pip uninstall -y {goes.name} && "
        f"pip install --force-reinstall --no-deps {stays.name}=={stays.version}",
    )


def _wheel_over_jetpack(environment: Environment) -> Combination | None:
    system = _libraries_of_system(environment)
    over = [one for one in environment.tensorrt if one.source == "wheel"]
    if environment.l4t is None or not system or not over:
        return None
    return Combination(
        f"TensorRT by wheel ({_listed(over)}) over JetPack's ({_listed(system)})",
        "Python takes the wheel, whose libraries are for other GPUs and drivers than this Jetson's",
        f"pip uninstall -y {' '.join(one.name for one in over)}",
    )


def _without_libraries(environment: Environment, suffix: str) -> Combination | None:
    wheels = {one.name: one for one in environment.tensorrt if one.source == "wheel"}
    bindings, libraries = wheels.get(f"tensorrt{suffix}-bindings"), f"tensorrt{suffix}-libs"
    if bindings is None or libraries in wheels or environment.l4t is not None:
        return None
    # Without a wheel of them the bindings take the system's libraries, if they are of their release.
    release = release_of(bindings.version)
    if any(release_of(one.version) == release for one in _libraries_of_system(environment)):
        return None
    return Combination(
        f"{_listed([bindings])} without {libraries}",
        "the bindings are a Python module alone: importing it finds no libnvinfer",
        f"pip install {libraries}=={bindings.version}",
    )


def _unequal(runtime: str) -> Combination | None:
    """What a runtime itself says of parts that are all there and do not fit."""
    reason = runtimes.get(runtime).missing()
    if not isinstance(reason, EnvironmentLacks) or isinstance(reason, MissingExtra):
        return None
    if runtimes.get(runtime).version() is None:
        return None
    return Combination(
        reason.what, f"neither building nor running with {runtime} works so", reason.hint or ""
    )


def _libraries_of_system(environment: Environment) -> list[Package]:
    return [one for one in environment.tensorrt if one.source == "system" and one.name not in TENSORRT_WHEELS]


def _listed(packages: list[Package]) -> str:
    return ", ".join(f"{one.name} {one.version}" for one in packages)
