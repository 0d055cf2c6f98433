"""Records of a bundle, and reports in JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.bundled import apart, files_of_bundle, small_bundle
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import plain
from tools.check.fuzz.states import states

_KINDS = (
    *("validation", "selftest", "benchmark", "energy", "diagnosis", "tensors", "streams", "soak"),
    "tuning",
)
_ROWS = 6  # of a chart's hundreds
_FILE = "runs/20260102T030405.000000Z-x.json"


class RecordDoor(Door):
    """A record in runs/ of a bundle."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name, self.reads = f"{kind} record", f"a record of the kind {kind}"  # type: ignore[misc]

    def prepare(self) -> None:
        import cnnx.pipeline.report.report
        import cnnx.report.page  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        files = files_of_bundle()
        record = json.loads(text_of(files, max(name for name in files if f"-{self.kind}-" in name)))
        plain.shorten(record)
        rest = {name: content for name, content in files.items() if not name.startswith("runs/")}
        return {"bundle": {**rest, _FILE: json.dumps(record, indent=1).encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = plain.json_text(dice, json.loads(text_of(files, _FILE)))
        return {**files, _FILE: changed}, how

    def read(self, folder: Path) -> Any:
        """The record as commands use it, and reports on it."""
        from cnnx.bundle import Bundle
        from cnnx.pipeline.compare.evidence import evidence_of
        from cnnx.pipeline.records.verified import checked, records_of
        from cnnx.pipeline.report.report import report_of
        from cnnx.report.files import FORMATS

        bundle = Bundle.open(folder, verify=False)
        record = checked(bundle.record(folder / _FILE), where=folder / _FILE)
        report = report_of([folder])
        for suffix in (".md", ".xml", ".csv", ".json"):
            FORMATS[suffix](report)
        evidence_of(records_of(bundle).verified)
        return record.as_dict()

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        from cnnx.schema import with_hints

        document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        for subject in (document["subject"], document["result"].get("subject", {})):
            if subject.get("device_kind") == "":
                del subject["device_kind"]  # read off the device's name
        if not states(after, {**document, "result": with_hints(document["result"])}):
            return ""
        return "other figures, as it states"

    def command(self, folder: Path) -> list[str]:
        return ["report", str(folder / _FILE), "--out", "r.md"]


class ReportDoor(Door):
    """A report that was written as JSON."""

    name, reads = "report", "a report in JSON"
    lenient = True  # `report` reads less of its rows than `compare`

    def prepare(self) -> None:
        import cnnx.pipeline.compare.compare
        import cnnx.pipeline.report.report
        import cnnx.report.page  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        file = Path(tempfile.mkdtemp(dir=scratch)) / "r.json"
        apart(write_report, small_bundle(), file)
        report = json.loads(file.read_text(encoding="utf-8"))
        plain.shorten(report)
        for chart in (each for section in report["sections"] for each in section.get("charts", ())):
            del chart["rows"][_ROWS:]
        return {"report": {"r.json": json.dumps(report, indent=1).encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = plain.json_text(dice, json.loads(text_of(files, "r.json")))
        return {"r.json": changed}, how

    def read(self, folder: Path) -> Any:
        from cnnx.pipeline.compare.sources import read_side
        from cnnx.pipeline.report.sources import read_sources
        from cnnx.report.files import FORMATS
        from cnnx.schema import plain_of

        [report] = read_sources(folder / "r.json")
        for suffix in (".md", ".xml", ".csv", ".annotations", ".metrics"):
            FORMATS[suffix](report)
        read_side(folder / "r.json")
        return plain_of(report)

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        document = json.loads((folder / "r.json").read_text(encoding="utf-8"))
        return "another report, as it states" if states(after, document) else ""

    def command(self, folder: Path) -> list[str]:
        return ["report", str(folder / "r.json"), "--out", "r.html"]


def write_report(bundle: Path, file: Path) -> None:
    """Write the report of a bundle."""
    import cnnx

    cnnx.write_report(bundle, file)


DOORS = (*(RecordDoor(kind) for kind in _KINDS), ReportDoor())
