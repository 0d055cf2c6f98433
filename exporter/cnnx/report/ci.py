"""Writes verdicts as GitHub's workflow commands, and figures as GitLab's metrics report."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cnnx.report.cases import suites_of
from cnnx.report.table import Said

_LEVELS = {"bad": "error", "open": "warning"}


def workflow_commands(blocks: Iterable[Said]) -> str:
    """A workflow command for each gate that did not pass: printed in a job, GitHub shows it on the run.

    Failed gates are errors, and undecided ones warnings. Line breaks and percent signs are escaped as in
    github.com/actions/toolkit, packages/core/src/command.ts.
    """
    lines = [
        f"::{_LEVELS[case.tone]} title={_property(f'{case.classname}: {case.name}')}::"
        f"{_data('; '.join([case.message, *case.reasons]))}"
        for suite in suites_of(blocks)
        for case in suite.cases
        if case.tone in _LEVELS
    ]
    return "".join(f"{line}\n" for line in lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def metrics(blocks: Iterable[Said]) -> str:
    """Value and interval of each gate and latency in OpenMetrics text, for GitLab's `reports: metrics`.

    GitLab compares each metric with that of the target branch, by name and labels
    (docs.gitlab.com/ci/testing/metrics_reports). Labels therefore hold no hash and no date.
    """
    found: dict[str, float] = {}
    for suite in suites_of(blocks):
        for case in suite.cases:
            if "value" in case.figures:
                name = re.sub(r"[^a-z0-9]+", "_", f"cnnx {case.name} {case.unit}".lower()).strip("_")
                for figure, value in case.figures.items():
                    label = _label(case.classname)
                    found[f'{name}{{subject="{label}",figure="{figure}"}}'] = value
    return "".join(f"{name} {value:.9g}\n" for name, value in found.items()) + "# EOF\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
