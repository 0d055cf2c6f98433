"""A survey's rows as files: survey.md for people, survey.json for what comes after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnx.report.markdown import markdown
from cnnx.report.tables.survey import survey_blocks
from cnnx.store.files import atomic_file


def write_survey(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write both files.

    Raises:
        WriteFailed: they cannot be written.
    """
    with atomic_file(folder / "survey.json") as draft:
        draft.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    with atomic_file(folder / "survey.md") as draft:
        draft.write_text(markdown(survey_blocks(rows)), encoding="utf-8")
