"""Finds conflicting packages, with the reason and the command that fixes each conflict."""

from __future__ import annotations

from dataclasses import dataclass

from cnnx import runtimes
from cnnx.errors import EnvironmentLacks, MissingExtra
from cnnx.machine.driver import too_new
from cnnx.machine.environment import Environment
from cnnx.machine.packages import TENSORRT_WHEELS, Package, Wheels
from cnnx.runtimes.engine.network import release_of


@dataclass(frozen=True, slots=True)
class Combination:
    """A wrong combination of packages.

    Attributes:
        what: what is installed.
        why: why that is a problem.
        hint: the command that fixes it.
    """

    what: str
    why: str
    hint: str


def wrong_combinations(environment: Environment, wheels: Wheels) -> tuple[Combination, ...]:
    """All known conflicts between packages on this machine.

    Args:
        environment: the machine and its packages.
        wheels: finds installed Python distributions.
    """
    found = [
        _two_onnxruntimes(environment, wheels),
        _wheel_over_jetpack(environment),
        *_newer_than_driver(environment, wheels),
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
        "both provide the module onnxruntime: the one installed last overwrote files of the other, so it is "
        "undefined which one runs, and whether it uses the GPU",
        # Uninstalling one removes files of both.
        f"pip uninstall -y {goes.name} && "
        f"pip install --force-reinstall --no-deps {stays.name}=={stays.version}",
    )


def _wheel_over_jetpack(environment: Environment) -> Combination | None:
    system = _libraries_of_system(environment)
    over = [one for one in environment.tensorrt if one.source == "wheel"]
    if environment.l4t is None or not system or not over:
        return None
    return Combination(
        f"TensorRT from a wheel ({_listed(over)}) in addition to JetPack's ({_listed(system)})",
        "Python imports the wheel, whose libraries do not support this Jetson's GPU and driver",
        f"pip uninstall -y {' '.join(one.name for one in over)}",
    )


def _newer_than_driver(environment: Environment, wheels: Wheels) -> list[Combination]:
    if environment.l4t is not None or environment.gpu is None:
        return []
    driver = f"the driver {environment.gpu.driver} supports CUDA up to {environment.gpu.cuda}"
    return [
        Combination(f"the extra {extra} for CUDA 13", f"{driver}: its libraries find no GPU", line)
        for extra, line in too_new(environment, wheels).items()
    ]


def _without_libraries(environment: Environment, suffix: str) -> Combination | None:
    wheels = {one.name: one for one in environment.tensorrt if one.source == "wheel"}
    bindings, libraries = wheels.get(f"tensorrt{suffix}-bindings"), f"tensorrt{suffix}-libs"
    if bindings is None or libraries in wheels or environment.l4t is not None:
        return None
    # Without the libraries' wheel the bindings use the system's libraries, if those are of the same release.
    release = release_of(bindings.version)
    if any(release_of(one.version) == release for one in _libraries_of_system(environment)):
        return None
    return Combination(
        f"{_listed([bindings])} without {libraries}",
        "the bindings contain no libraries, so importing them does not find libnvinfer",
        f"pip install {libraries}=={bindings.version}",
    )


def _unequal(runtime: str) -> Combination | None:
    """A conflict that the runtime itself reports, between parts that are all installed."""
    reason = runtimes.get(runtime).missing()
    if not isinstance(reason, EnvironmentLacks) or isinstance(reason, MissingExtra):
        return None
    if runtimes.get(runtime).version() is None:
        return None
    return Combination(
        reason.what, f"{runtime} can neither build nor run engines this way", reason.hint or ""
    )


def _libraries_of_system(environment: Environment) -> list[Package]:
    return [one for one in environment.tensorrt if one.source == "system" and one.name not in TENSORRT_WHEELS]


def _listed(packages: list[Package]) -> str:
    return ", ".join(f"{one.name} {one.version}" for one in packages)
