"""The task that measures the bundles of one network on the node's device, side by side."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnx.bundle import Bundle
from cnnx.options.bundles import SurveyOptions
from cnnx.pipeline.progress import Listener
from cnnx.pipeline.survey.journal import row_of, write_row
from cnnx.pipeline.survey.survey import survey_rows
from cnnx.store.files import scratch_folder

RECORDS = "records"


def run(arguments: Mapping[str, Any], files: Path, out: Path, *, listener: Listener) -> list[dict[str, Any]]:
    """Survey bundles, write the new records of each to `records/<its folder>`, and return the rows.

    Args:
        arguments: `model`, the network's name in rows; `bundles`, the names of their folders; `plan`, options
            of a survey; and `rows`, what the survey has found here before, which is not measured again.
        files: has the bundles.
        out: folder for records.
        listener: receives progress events.
    """
    bundles = [files / name for name in arguments["bundles"]]
    # A survey names a network as its recipe does, which a file's name may differ from.
    recipe = Bundle.open(bundles[0], verify=False).manifest.recipe["name"]
    before = {folder: set(_records(folder)) for folder in bundles}
    with scratch_folder() as scratch:
        for row in arguments["rows"]:
            write_row({**row_of(row, where=scratch), "model": recipe}, scratch)
        plan = SurveyOptions(out=scratch, **arguments["plan"])
        rows = survey_rows(bundles, plan, listener=listener)
    for folder in bundles:
        new = out / RECORDS / folder.name
        new.mkdir(parents=True)
        for file in set(_records(folder)) - before[folder]:
            shutil.copyfile(file, new / file.name)
    return [{**row, "model": arguments["model"]} for row in rows]


def _records(folder: Path) -> tuple[Path, ...]:
    return Bundle.open(folder, verify=False).record_files()
