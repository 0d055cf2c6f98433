"""Write docs/schemas/*.json from the types of the files. With --check, fail if a schema is stale.

python -m tools.docs.schemas_page [--check]
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from cnnx.bundle.engine import Engine
from cnnx.bundle.manifest import Manifest
from cnnx.gates import GateTable
from cnnx.machine.environment import Environment
from cnnx.pipeline.plain import JSON_SCHEMA
from cnnx.pipeline.records.kinds import RESULTS, result_type
from cnnx.preprocessing.presets import PreprocessingTable
from cnnx.quant.calibration import CalibrationFile
from cnnx.recipe import Recipe
from cnnx.record import Record
from cnnx.report.document import Report
from cnnx.schema import fields_of
from tools import ROOT
from tools.docs.printed import COMMANDS, printed

FOLDER = ROOT / "docs" / "schemas"


def _keys_of(kind: Any, **as_written: Any) -> type:
    """A dataclass with only the fields that are keys of the file, some with the type they are written as."""
    fields: list[Any] = [
        (f.name, as_written.get(f.name, fields_of(kind)[f.name]), dataclasses.field(default=f.default))
        for f in dataclasses.fields(kind)
        if f.name in fields_of(kind)
    ]
    made = dataclasses.make_dataclass(kind.__name__, fields, frozen=True, kw_only=True)
    made.__doc__ = kind.__doc__
    return made


_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_FILES = {
    "recipe": _keys_of(Recipe, preprocessing=PreprocessingTable),
    "gates": GateTable,
    "manifest": Manifest,
    "engine": Engine,
    "calibration": CalibrationFile,
    "report": Report,
}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What is wrong, where, and how to fix it."""

    kind: str
    what: str
    where: str | None
    hint: str | None


def pages() -> dict[str, str]:
    """File name -> text."""
    found = {f"{name}.json": _text(kind, f"cnnx: {name}") for name, kind in _FILES.items()}
    kinds = [Record, Environment, *map(result_type, RESULTS)]
    schemas, parts = msgspec.json.schema_components(kinds, schema_hook=_hook, ref_template="#/$defs/{name}")
    _described(parts)
    results = [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": {"properties": {"result": schema}}}
        for kind, schema in zip(RESULTS, schemas[2:], strict=True)
    ]
    record = {"allOf": [schemas[0], {"properties": {"environment": schemas[1]}}, *results]}
    found["record.json"] = _written({"title": "cnnx: record", **record, "$defs": parts})
    found["printed.json"] = _printed()
    return found


def _printed() -> str:
    """The schema of all output of --json: one object per command, or an error."""
    schemas, parts = msgspec.json.schema_components(
        [*map(printed, COMMANDS.values()), Refusal], schema_hook=_hook, ref_template="#/$defs/{name}"
    )
    _described(parts)
    head = {"schema": {"const": JSON_SCHEMA}}
    objects = [
        {
            "title": f"cnnx {command}",
            "properties": {**head, "command": {"const": command.partition(" --")[0]}, "result": schema},
            "required": ["schema", "command", "result"],
        }
        for command, schema in zip(COMMANDS, schemas[:-1], strict=True)
    ]
    error = {
        "title": "an error, or an internal error of cnnx (70)",
        "properties": {**head, "error": schemas[-1], "exit_code": {"type": "integer"}},
        "required": ["schema", "error", "exit_code"],
    }
    return _written({"title": "cnnx: output of --json", "anyOf": [*objects, error], "$defs": parts})


def _text(kind: Any, title: str) -> str:
    (schema,), parts = msgspec.json.schema_components(
        [kind], schema_hook=_hook, ref_template="#/$defs/{name}"
    )
    _described(parts)
    return _written({"title": title, **schema, "$defs": parts})


def _written(schema: dict[str, Any]) -> str:
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _hook(kind: type) -> dict[str, Any]:
    return {"type": "string"} if issubclass(kind, Path) else {}


def _described(parts: dict[str, Any]) -> None:
    """Move descriptions of attributes from docstrings to the keys."""
    for part in parts.values():
        part["additionalProperties"] = part.get("additionalProperties", False)
        text = inspect.cleandoc(part.get("description", ""))  # msgspec 0.22 leaves indents
        part["description"] = text.split("\n\nAttributes:")[0].strip()
        for key, description in _ATTRIBUTE.findall(text):
            if key in part.get("properties", {}):
                part["properties"][key]["description"] = " ".join(description.split())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a schema is stale")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        file = FOLDER / name
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    gone = [file.name for file in FOLDER.glob("*.json") if file.name not in pages()]
    if check and (stale or gone):
        print(f"docs/schemas is stale: {', '.join([*stale, *gone])}; run make docs")
        return 1
    for name in gone:
        (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
