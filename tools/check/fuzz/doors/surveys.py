"""Rows of a survey, and archives of doctor's proof."""

from __future__ import annotations

import functools
import gzip
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tools.check.fuzz.bundled import apart, small_bundle
from tools.check.fuzz.door import Door, Files
from tools.check.fuzz.doors.recipes import text_of
from tools.check.fuzz.mutators import octets, plain
from tools.check.fuzz.states import states

_ROW = "rows/b-int8-b1.json"


class RowDoor(Door):
    """A row of a survey that is resumed or reported."""

    name, reads = "survey row", "a row in a survey's folder"

    def prepare(self) -> None:
        import cnnx.pipeline.survey.report  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        row = json.loads(_proof_files()["proof.json"])["rows"][0]
        row |= {"model": "b", "findings": ["a finding"], "energy_doubts": ["a doubt"], "killed": 1}
        return {"row": {_ROW: json.dumps(row, indent=1).encode()}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        changed, how = plain.json_text(dice, json.loads(text_of(files, _ROW)))
        return {_ROW: changed}, how

    def read(self, folder: Path) -> Any:
        """The row as a resumed survey takes it, and a report on it."""
        from cnnx.pipeline.survey.journal import Journal, read_rows
        from cnnx.pipeline.survey.report import survey_report
        from cnnx.report.files import FORMATS

        rows = read_rows(folder)
        journal = Journal(folder, {("b", "int8"): rows[0]["follows_from"]}, again=True, energy=True)
        journal.is_over(("b", "int8", 1))
        report = survey_report(folder)
        for suffix in (".md", ".xml", ".csv", ".json"):
            FORMATS[suffix](report)
        return rows

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        from cnnx.schema import with_hints

        document = with_hints(json.loads((folder / _ROW).read_text(encoding="utf-8")))
        _without_guess(document)
        return "other figures, as it states" if states(after[0], document) else ""

    def command(self, folder: Path) -> list[str]:
        return ["report", "--survey", str(folder), "--out", "s.md"]


class ProofDoor(Door):
    """An archive that the owner of a device sends in; `make docs` reads it."""

    name, reads = "proof", "an archive of `cnnx doctor --proof`"

    def prepare(self) -> None:
        import tools.docs.devices_page  # noqa: F401

    def seeds(self, scratch: Path) -> dict[str, Files]:
        return {"archive": {"p.tar.gz": _packed(_proof_files())}}

    def mutate(self, dice: Random, files: Files) -> tuple[Files, str]:
        content = files["p.tar.gz"]
        assert isinstance(content, bytes)
        kind = dice.random()
        if kind < 0.15:
            changed, how = octets.damage(dice, content)
            return {"p.tar.gz": changed}, how
        if kind < 0.35:
            changed, how = octets.damage(dice, gzip.decompress(content))
            return {"p.tar.gz": gzip.compress(changed, 1)}, f"in the archive: {how}"
        members = _unpacked(content)
        name = "proof.json" if dice.random() < 0.6 else dice.choice(list(members))
        if kind < 0.5:
            return {"p.tar.gz": _packed(members, other=(name, dice))}, "member"
        if name.endswith(".json"):
            members[name], how = plain.json_text(dice, json.loads(members[name]))
        else:
            members[name], how = octets.damage(dice, members[name])
        return {"p.tar.gz": _packed(members)}, how

    def read(self, folder: Path) -> Any:
        """Its rows, energies and machine, and the page that has them."""
        from tools.docs.devices_page import page, read_proof

        proof = read_proof(folder / "p.tar.gz")
        return proof["rows"], proof["energies"], proof["diagnosis"]["environment"], page([proof])

    def legitimate(self, before: Any, after: Any, folder: Path) -> str:
        """What is read is what the archive's documents state, and each row of figures is one of the page."""
        members = _unpacked((folder / "p.tar.gz").read_bytes())
        document = json.loads(members["proof.json"])
        rows, energies, environment, page = after
        for row in document["rows"]:
            _without_guess(row)
        records = [json.loads(content) for name, content in members.items() if "-energy-" in name]
        fits = states(rows, document["rows"]) and states(environment, document["diagnosis"]["environment"])
        fits = fits and all(any(states(each, record["result"]) for record in records) for each in energies)
        return "other figures, as it states" if fits and page.count("\n| ") >= len(rows) else ""

    def command(self, folder: Path) -> list[str]:
        return []  # `make docs` reads archives


def _without_guess(row: dict[str, Any]) -> None:
    """Remove an empty kind of device, which is then read off the device's name."""
    if row.get("subject", {}).get("device_kind") == "":
        del row["subject"]["device_kind"]


@functools.cache
def _proof_files() -> dict[str, bytes]:
    """What doctor's proof holds, measured on this machine in a child."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "p.tar.gz"
        apart(prove, shutil.copytree(small_bundle(), Path(folder) / "b"), archive)
        files = _unpacked(archive.read_bytes())
    files = {name: content for name, content in files.items() if "-selftest-" not in name}
    for name in [name for name in files if name.endswith(".json")]:
        data = json.loads(files[name])
        plain.shorten(data)
        files[name] = json.dumps(data, indent=1).encode()
    return files


def prove(bundle: Path, archive: Path) -> None:
    """Measure a bundle as doctor's proof does, with power that is made up."""
    import cnnx
    from cnnx.options.bundles import SurveyPlan
    from tests.doubles.rehearsal import rehearsal

    plan = SurveyPlan(target="ort", seconds=0.01, percentile=50, power=rehearsal(tick_ms=200))
    cnnx.prove(archive, bundles=[bundle], batches=(1,), plan=plan)


def _unpacked(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {each.name: tar.extractfile(each) for each in tar.getmembers() if each.isreg()}
        return {name: file.read() for name, file in found.items() if file is not None}


def _packed(members: dict[str, bytes], *, other: tuple[str, Random] | None = None) -> bytes:
    """An archive; `other`: a member whose header is changed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if other and name == other[0]:
                _change(other[1], info)
            tar.addfile(info, io.BytesIO(content + bytes(max(0, info.size - len(content)))))
    return out.getvalue()


def _change(dice: Random, info: tarfile.TarInfo) -> None:
    match dice.randrange(4):
        case 0:
            info.name = dice.choice(
                ("../x", "/etc/x", "", "x" * 300, "proof.json", "runs/../../x-energy-.json")
            )
        case 1:
            info.type = dice.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE))
            info.linkname = dice.choice(("/etc/passwd", "proof.json", "survey.md", "x"))
            info.size = 0
        case 2:
            info.size = dice.choice((0, 1, info.size // 2, info.size + 512))
        case _:
            info.mode, info.mtime, info.uid = dice.choice(((0, 0, 0), (0o7777, 2**33 - 1, 2**21 - 1)))


DOORS = (RowDoor(), ProofDoor())
