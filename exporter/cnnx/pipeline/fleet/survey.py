"""`fleet survey`: the cells of a survey on many devices; networks are exported once, where PyTorch is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from cnnx import runtimes
from cnnx.bundle import MANIFEST, Bundle, is_bundle
from cnnx.bundle.writing import new_bundle
from cnnx.errors import BundleError, InputRefused, UsageError, WriteFailed
from cnnx.machine.environment import installed_version
from cnnx.options import Precision, takes
from cnnx.options.fleet import FleetSurveyOptions
from cnnx.pipeline.bench.energy import power_pass
from cnnx.pipeline.fleet.cluster.names import check_device
from cnnx.pipeline.fleet.connect import open_pool
from cnnx.pipeline.fleet.tasks.export import BUNDLE
from cnnx.pipeline.fleet.tasks.survey import RECORDS
from cnnx.pipeline.fleet.work.job import EXPORT, Answer, Job, Lost, NodeFacts, Pool
from cnnx.pipeline.progress import Listener, silent
from cnnx.pipeline.survey.journal import Row, cell_of, read_rows, row_of, write_row
from cnnx.pipeline.survey.plan import Sources, planned
from cnnx.pipeline.survey.report import write_rows
from cnnx.pipeline.survey.survey import SurveyResult, draw_page, keeping_rows, origin_of, reason_of
from cnnx.record import read_record
from cnnx.schema import read_json
from cnnx.store.files import atomic_file, check_place

_BUNDLES, _DEVICES, _ORIGINS = "bundles", "devices", "origins.json"
_SENT = ("target", "seconds", "percentile", "cuda_graph", "rate", "sensor", "again")


@dataclass(frozen=True, slots=True, repr=False)
class FleetSurveyResult(SurveyResult):
    """All cells of a survey of several devices: as those of a survey; `on` is the name of the device.

    Attributes:
        nodes: the nodes that did the work.
    """

    nodes: tuple[NodeFacts, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        nodes = [dataclasses.asdict(node) for node in self.nodes]
        return {**SurveyResult.as_dict(self), "nodes": nodes}


@takes(FleetSurveyOptions, "plan")
def fleet_survey(
    models: Sequence[str | Path], plan: FleetSurveyOptions, *, listener: Listener = silent
) -> FleetSurveyResult:
    """Measure networks in several precisions and batches on every device of a fleet.

    Networks that cnnx ships are exported on the nodes with PyTorch, files on this machine. A bundle is sent
    to a node once; its engine is built there. One job at a time runs on a node: the precisions of one
    network at one batch, side by side. A job whose node is lost is given to another one of the same kind, or
    its cells fail with the reason. Rows are kept in `out`, in a survey's folder for each device; what is
    finished there is not measured again, so a stopped survey resumes.

    Args:
        models: names of recipes, recipe files, ONNX files, or folders of bundles.
        plan: options as an object; each can also be given by keyword. `out` is a new folder, or that of an
            earlier survey of a fleet.
        listener: receives progress events, also of each node (`NodeEvent`).

    Raises:
        UsageError: an option is invalid, no node has a device that `on` names, or `out` is the folder of a
            survey of one device.
        RecipeError: a model does not exist.
        WeightsError: a checkpoint does not exist.
        ImageError: images that a recipe names do not exist.
        EnvironmentLacks: no node can be reached.
        Unreachable: the head of the cluster cannot be reached.
        WriteFailed: `out` or the cache cannot be written.

    Examples:
        >>> cnnx.fleet_survey(["resnet20"], out="nets", batches=(1, 8))  # doctest: +SKIP
    """
    networks = planned(models, plan.precisions, plan.batches, plan)
    power_pass(plan)
    out = Path(plan.out)
    if (out / "rows").is_dir():
        raise UsageError(
            "this is the folder of a survey of one device", where=out, hint="name another folder with --out"
        )
    check_place(out / "survey.json")
    with open_pool(plan, listener=listener) as pool:
        survey = _Survey(networks, plan, out, pool, listener)
        with keeping_rows(survey.rows, out, listener):
            survey.go_on()
    rows = survey.rows()
    write_rows(rows, out)
    return FleetSurveyResult(out, rows, draw_page(rows, out, listener), survey.nodes)


@dataclass(slots=True)
class _Network:
    """What is known of a network: its bundles by precision, and what is not exported yet."""

    bundles: dict[str, Path] = field(default_factory=dict)
    awaited: set[str] = field(default_factory=set)


class _Survey:
    """A survey of a fleet while it runs."""

    def __init__(
        self, networks: Sources, plan: FleetSurveyOptions, out: Path, pool: Pool, listener: Listener
    ) -> None:
        self._plan, self._out, self._pool, self._listener = plan, out, pool, listener
        self._sources = networks
        self._networks = {name: _Network() for name in networks}
        self.nodes = tuple(pool.nodes())
        self._devices = _devices(pool.devices(), plan.on)
        self._cells = {
            (device, name, precision, batch): None
            for device in self._devices
            for name, sources in networks.items()
            for precision in sources
            for batch in plan.batches
        }

    def rows(self) -> tuple[Row, ...]:
        """The rows of this survey's cells on all devices."""
        found = [row for device in self._devices for row in self._rows_of(device)]
        return tuple(row for row in found if (row["on"], *cell_of(row)) in self._cells)

    def go_on(self) -> None:
        """Do what is left to do."""
        exports = list(self._exports())
        for name, network in self._networks.items():
            if not network.awaited:
                exports += self._measurements(name)
        for job, outcome in self._pool.run(exports, listener=self._listener):
            if job.task == "export":
                self._take_export(job, outcome)
            else:
                self._take_rows(job, outcome)

    def _exports(self) -> Iterator[Job]:
        """Jobs for the bundles that are neither given nor made before. Files are exported here."""
        for name, sources in self._sources.items():
            network = self._networks[name]
            for precision, source in sources.items():
                folder = self._folder(name, precision, source)
                network.bundles[precision] = folder
                if isinstance(source, Path) or self._is_made(folder, source):
                    continue
                job = self._export(name, precision, source)
                if _is_file(source):
                    self._export_here(job, folder, source)
                    continue
                network.awaited.add(precision)
                yield job

    def _export(self, name: str, precision: str, model: str) -> Job:
        weights = self._plan.weights_of(model)
        file = {Path(weights).name: Path(weights)} if Path(weights).is_file() else {}
        arguments = {
            "model": model,
            "precision": precision,
            "batch": [min(self._plan.batches), max(self._plan.batches)],
            "images": self._plan.images,
            "weights": next(iter(file), weights),
        }
        return Job(f"{name} in {precision}", "export", arguments, EXPORT, file, group=f"{name} {precision}")

    def _export_here(self, job: Job, folder: Path, model: str) -> None:
        """Export a file, whose paths are of this machine. If that fails, its rows say why."""
        from cnnx.pipeline.export.export import export

        try:
            export(
                model,
                precision=cast("Precision", job.arguments["precision"]),
                target=runtimes.GRAPHS,
                weights=self._plan.weights_of(model),
                out=folder,
                batch=tuple(job.arguments["batch"]),
                calibration_images=self._plan.images,
                validation_images=self._plan.images,
                listener=self._listener,
            )
            self._keep_origin(folder, model)
        except WriteFailed:  # as in a survey of this machine: the same command tries it again
            raise
        except Exception as error:  # also bugs of cnnx or a library, as the other networks are still useful
            name, precision = job.group.rsplit(" ", 1)
            self._drop(name, precision, Lost(*reason_of(error)))

    def _take_export(self, job: Job, outcome: Answer | Lost) -> None:
        """Keep a bundle, and let the network be measured once all its bundles are there."""
        name, precision = job.group.rsplit(" ", 1)
        network = self._networks[name]
        network.awaited.remove(precision)
        if isinstance(outcome, Lost):
            self._drop(name, precision, outcome)
        else:
            try:
                _put_bundle(outcome.folder / BUNDLE, network.bundles[precision])
                self._keep_origin(network.bundles[precision], job.arguments["model"])
            except InputRefused as error:
                self._drop(name, precision, Lost(*reason_of(error)))
        if not network.awaited:
            self._pool.add(self._measurements(name))

    def _measurements(self, name: str) -> Iterator[Job]:
        """One job for each device and batch: the precisions of a network are measured side by side."""
        bundles = self._networks[name].bundles
        listed = [(precision, self._files_of(name, precision)) for precision in list(bundles)]
        files = {f"{precision}/{key}": path for precision, found in listed for key, path in found.items()}
        if not bundles:
            return
        sent = {key: getattr(self._plan, key) for key in _SENT} | {"power": bool(self._plan.power)}
        for device in self._devices:
            known = [row for row in self._rows_of(device) if row["model"] == name]
            for batch in dict.fromkeys(self._plan.batches):
                rows = [row for row in known if row["batch"] == batch and row["precision"] in bundles]
                arguments = {
                    "bundles": list(bundles),
                    "model": name,
                    "plan": {**sent, "batches": [batch]},
                    "rows": [{key: value for key, value in row.items() if key != "on"} for row in rows],
                }
                yield Job(
                    f"{name}, batch {batch}", "survey", arguments, device, files, group=name, stays=True
                )

    def _files_of(self, name: str, precision: str) -> dict[str, Path]:
        """The files that a node gets of a bundle; empty for a damaged one, whose rows then say so."""
        folder = self._networks[name].bundles[precision]
        try:
            return {path.relative_to(folder).as_posix(): path for path in _files_of(folder)}
        except BundleError as error:
            self._drop(name, precision, Lost(*reason_of(error)))
            return {}

    def _take_rows(self, job: Job, outcome: Answer | Lost) -> None:
        """Keep the rows and records of one network on one device at one batch."""
        device, folder = job.needs, self._out / _DEVICES / job.needs
        [batch] = job.arguments["plan"]["batches"]
        if isinstance(outcome, Lost):
            self._fail(job.group, job.arguments["bundles"], outcome, devices=[device], batches=[batch])
        else:
            try:
                self._keep(job, outcome, folder, batch)
            except InputRefused as error:
                lost = Lost(f"{outcome.node.name} answered: {error.what}", error.hint or "")
                self._fail(job.group, job.arguments["bundles"], lost, devices=[device], batches=[batch])
        write_rows(self._rows_of(device), folder)

    def _keep(self, job: Job, answer: Answer, folder: Path, batch: int) -> None:
        """Keep the rows and records that a node sent, if they are those of its job.

        Raises:
            InputRefused: they are not.
        """
        where = Path(answer.node.name)
        sent = answer.value if isinstance(answer.value, list) else [None]
        rows = [row_of(each, where=where) for each in sent]
        wanted = {(job.group, precision, batch) for precision in job.arguments["bundles"]}
        if {cell_of(row) for row in rows} != wanted:
            raise InputRefused(
                "rows of other cells", where=where, hint="install the same version of cnnx there"
            )
        bundles = self._networks[job.group].bundles
        records = [
            (bundle, read_record(file))
            for precision, bundle in bundles.items()
            for file in sorted((answer.folder / RECORDS / precision).glob("*.json"))
        ]
        for bundle, record in records:
            Bundle.open(bundle, verify=False).add_record(record)
        for row in rows:
            write_row({**row, "on": job.needs}, folder)

    def _drop(self, name: str, precision: str, lost: Lost) -> None:
        """Give up a network in one precision: nothing can be measured."""
        self._networks[name].bundles.pop(precision)
        self._fail(name, [precision], lost)

    def _fail(
        self,
        name: str,
        precisions: Iterable[str],
        lost: Lost,
        *,
        devices: Sequence[str] = (),
        batches: Sequence[int] = (),
    ) -> None:
        """Write a row with the reason for each cell that has no figures of these bundles."""
        for device in devices or self._devices:
            done = {cell_of(row) for row in self._rows_of(device) if self._is_current(row)}
            for precision in precisions:
                for batch in batches or self._plan.batches:
                    if (name, precision, batch) not in done:
                        row = {"model": name, "precision": precision, "batch": batch, "status": "failed"}
                        row |= {"reason": lost.reason, "hint": lost.hint, "verdict": None}
                        write_row({**row, "follows_from": {}, "on": device}, self._out / _DEVICES / device)

    def _is_current(self, row: Row) -> bool:
        """Whether a row has figures, and they are of the bundle that there is now."""
        network = self._networks.get(row["model"])
        bundle = network.bundles.get(row["precision"]) if network else None
        if row["status"] != "done" or bundle is None:
            return False
        with contextlib.suppress(BundleError):
            fingerprint = Bundle.open(bundle, verify=False).manifest.fingerprint
            return bool(row["follows_from"].get("network") == fingerprint)
        return False

    def _rows_of(self, device: str) -> tuple[Row, ...]:
        return read_rows(self._out / _DEVICES / device)

    def _folder(self, name: str, precision: str, source: str | Path) -> Path:
        return source if isinstance(source, Path) else self._out / _BUNDLES / f"{name}-{precision}"

    def _origin(self, source: str) -> dict[str, Any]:
        version = installed_version("cnnx")
        return {"model": source, "cnnx": version, **origin_of(source, self._plan.batches, self._plan)}

    def _is_made(self, folder: Path, source: str) -> bool:
        """Whether a whole bundle is there that was made from the same."""
        with contextlib.suppress(BundleError):
            return is_bundle(folder) and bool(
                Bundle.open(folder) and self._origins().get(folder.name) == self._origin(source)
            )
        return False

    def _keep_origin(self, folder: Path, source: str) -> None:
        data = {**self._origins(), folder.name: self._origin(source)}
        with atomic_file(self._out / _BUNDLES / _ORIGINS) as draft:
            draft.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def _origins(self) -> dict[str, Any]:
        """What the bundles in `out` were made from, by folder."""
        file = self._out / _BUNDLES / _ORIGINS
        if not file.is_file():
            return {}
        data = read_json(file.read_bytes(), where=file, error=InputRefused, hint="delete this file")
        return data if isinstance(data, dict) else {}


def _devices(found: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The devices to measure on.

    Raises:
        UsageError: no node has one of them, or none is a device.
    """
    for device in (*found, *wanted):
        check_device(device)
    lacking = [device for device in wanted if device not in found]
    if lacking or not found:
        what = f"no node of the fleet has the device {lacking[0]!r}" if lacking else "no node is a device"
        has = f"there are: {', '.join(found)}" if found else "cnnx fleet join --as NAME makes it one"
        raise UsageError(what, hint=has)
    return tuple(dict.fromkeys(wanted)) or tuple(found)


def _is_file(model: str) -> bool:
    return Path(model).suffix.lower() in (".onnx", ".toml")


def _files_of(bundle: Path) -> Iterator[Path]:
    """The files of a bundle that are the same on every device, with export's record.

    Raises:
        BundleError: it is damaged.
    """
    opened = Bundle.open(bundle)
    yield from (bundle / name for name in (MANIFEST, *opened.manifest.files))
    for file in opened.record_files():
        with contextlib.suppress(BundleError):
            if opened.record(file).kind == "validation":
                yield file


def _put_bundle(made: Path, folder: Path) -> None:
    """Write a bundle that a node has made to its folder."""
    bundle = Bundle.open(made)
    with new_bundle(folder) as draft:
        for name in (MANIFEST, *bundle.manifest.files):
            shutil.copyfile(made / name, draft / name)
    for record in bundle.records():
        Bundle.open(folder, verify=False).add_record(record)
