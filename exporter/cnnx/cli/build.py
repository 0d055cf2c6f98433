"""`cnnx build`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from cnnx.cli.options import BundlePath, Debug, Json, Sm, Target


class Compatibility(str, enum.Enum):
    """GPUs that an engine of TensorRT shall run on."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"
    AMPERE_PLUS = "ampere_plus"


def build_command(
    bundle: BundlePath,
    target: Target = "auto",
    sm: Sm = None,
    opt_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Batch to choose the fastest kernels for; else the largest."),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="TensorRT: cap on the kernels' own memory; too low is slow."),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="TensorRT: 0 to 5 (3); higher tries more kernels and builds longer."),
    ] = None,
    hardware_compatibility: Annotated[
        Compatibility,
        typer.Option(help="TensorRT: run on other GPUs, too; slower than an engine for one model."),
    ] = Compatibility.NONE,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="TensorRT: run on later releases, too; larger and slower."),
    ] = False,
    dla: Annotated[
        int | None,
        typer.Option(min=0, metavar="CORE", help="TensorRT: build for this DLA core of an Orin; FP16 only."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Build engines from a bundle's graph and keep them in the bundle."""
    from cnnx.cli.ui import command

    with command(as_json=as_json, debug=debug) as ui:
        import cnnx
        from cnnx.report.tables.bundle import engine_table

        options = cnnx.BuildOptions(
            workspace_bytes=None if workspace is None else workspace * 2**20,
            optimization_level=optimization_level,
            hardware_compatibility=hardware_compatibility.value,
            version_compatible=version_compatible,
            dla_core=dla,
        )
        result = cnnx.build(
            bundle, target=target, sm=sm or (), opt_batch=opt_batch, options=options, listener=ui.listen
        )
        ui.show(result, command="build", render=lambda _: [engine_table(result.engines)])
