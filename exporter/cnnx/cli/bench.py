"""`cnnx bench`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnx.cli.options import (
    Debug,
    Engines,
    Json,
    Power,
    Rate,
    Report,
    Sensor,
    Target,
    Verbose,
    check_report,
    power_pass,
    sizes_of,
    write_report,
)

Bundles = Annotated[
    list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles' folders; several take turns.")
]


def bench_command(
    bundles: Bundles,
    target: Target = "auto",
    engine: Engines = None,
    batch: Annotated[str, typer.Option(help="Pictures a run, or several such as 1,2,4,8.")] = "1",
    seconds: Annotated[float, typer.Option(help="The least time to measure each for.")] = 3.0,
    percentile: Annotated[
        float, typer.Option(help="To be told, in percent; as many samples as it needs are taken.")
    ] = 99.0,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(help="Launch an engine as one CUDA graph; without either, where that is possible."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time layers, too, in a run apart, with the share of casts.")
    ] = False,
    power: Power = False,
    rate: Rate = None,
    sensor: Sensor = None,
    report: Report = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Measure latency and memory of what runs here, energy too if asked; the samples go to its runs/.

    Ends with 6 where a measurement on a GPU is invalid.
    """
    from cnnx.cli.ui import command

    with command(as_json=as_json, verbose=verbose, debug=debug) as ui:
        import cnnx
        from cnnx.cli.shown import bench_blocks

        check_report(report, bundles)
        result = cnnx.bench(
            bundles,
            target=target,
            engine=engine,
            batch=sizes_of(batch),
            seconds=seconds,
            percentile=percentile,
            cuda_graph=cuda_graph,
            layers=layers,
            power=power_pass(power=power, rate=rate, sensor=sensor),
            listener=ui.listen,
        )
        ui.show(
            result,
            command="bench",
            render=lambda verbose: bench_blocks(result, verbose=verbose),
            report=lambda: write_report(bundles, report),
        )
        raise typer.Exit(result.exit_code)
