"""Every shell step of the GitHub action and the GitLab template runs, as a runner would run it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import ROOT

pytest.importorskip("altair", reason="the GitLab template writes an HTML report")
CI = ROOT / "docs" / "ci"
LOOSE = "top1_agreement = 0.1\ntop1_in_top5 = 0.1\ntop5_agreement = 0.1\naccuracy_ratio = 0\n"
IMPOSSIBLE = "graph_mib = 0.0001\n"


@pytest.fixture
def folder(tiny_bundle, tmp_path):
    """A job's folder with two bundles and a file of gates."""
    for name in ("base", "bundle"):
        shutil.copytree(tiny_bundle, tmp_path / name)
    return tmp_path


def bash(script, folder, **variables):
    """Run a step as a runner does: bash with -e and pipefail, and cnnx on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def action(folder, **inputs):
    """Run the steps of the action; returns the exit code, and what GitHub would show."""
    data = yaml.safe_load((CI / "github" / "action.yml").read_text())
    given = {name: each.get("default", "") for name, each in data["inputs"].items()} | inputs
    output, summary = folder / "output", folder / "summary"
    output.touch()
    shown, code = "", 0
    for step in data["runs"]["steps"]:
        if code and step.get("if") != "always()":
            continue
        outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        variables = {}
        for name, value in step.get("env", {}).items():
            for key, text in given.items():
                value = value.replace("${{ inputs." + key + " }}", text)
            variables[name] = value.replace("${{ steps.judge.outputs.code }}", outputs.get("code", ""))
        assert not [value for value in variables.values() if "${{" in value]
        done = bash(
            step["run"], folder, GITHUB_OUTPUT=str(output), GITHUB_STEP_SUMMARY=str(summary), **variables
        )
        shown, code = shown + done.stdout, code or done.returncode
    return code, shown, summary.read_text() if summary.exists() else ""


@pytest.mark.parametrize("base", ["", "base"])
def test_the_action_passes_fails_and_shows_why(folder, base):
    (folder / "gates.toml").write_text(LOOSE)
    given = {"bundle": "bundle", "gates": "gates.toml", "base": base, "mode": "allow-inconclusive"}
    code, shown, summary = action(folder, **given)
    assert code == 0 and "::error" not in shown and "| top-1 agreement |" in summary
    (folder / "gates.toml").write_text(LOOSE + IMPOSSIBLE)
    code, shown, _ = action(folder, **given)
    assert code == 1 and "::error title=cnnx.tiny." in shown and "graph size" in shown
    assert action(folder, bundle="absent")[0] == 3


def template(folder, **variables):
    data = yaml.safe_load((CI / "gitlab.yml").read_text())[".cnnx-gates"]
    done = bash("\n".join(data["script"]), folder, **{**data["variables"], **variables})
    return done.returncode, [folder / path for path in data["artifacts"]["reports"].values()]


def test_the_template_passes_fails_and_writes_its_reports(folder):
    (folder / "gates.toml").write_text(LOOSE)
    code, reports = template(folder, BUNDLE="bundle", GATES="gates.toml", MODE="allow-inconclusive")
    assert code == 0 and all(report.stat().st_size for report in reports)
    (folder / "gates.toml").write_text(LOOSE + IMPOSSIBLE)
    code, (junit, metrics) = template(folder, BUNDLE="bundle", GATES="gates.toml", BASE="base", MODE="strict")
    assert code == 1 and "<failure" in junit.read_text() and "cnnx_graph_size_mib" in metrics.read_text()
