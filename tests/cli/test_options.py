"""An option is stated once, and reaches Python, the command line, the recipe and the docs."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import cnnx
from cnnx.cli.app import app
from cnnx.cli.options import command_of
from cnnx.errors import UsageError
from cnnx.options import overrides, takes
from cnnx.options.bundles import (
    ArchiveOptions,
    BenchOptions,
    BomOptions,
    CacheOptions,
    ClassifyOptions,
    CompareOptions,
    ComparingOptions,
    DiagnoseOptions,
    EngineOptions,
    FileOptions,
    InspectOptions,
    PackageOptions,
    PreflightOptions,
    ProofOptions,
    SignOptions,
    SurveyOptions,
    ThumbnailOptions,
    TuneOptions,
    ValidateOptions,
    VerifyOptions,
)
from cnnx.options.fleet import (
    DownOptions,
    FleetCalibrateOptions,
    FleetSurveyOptions,
    FleetValidateOptions,
    JoinOptions,
    StatusOptions,
    UpOptions,
)
from cnnx.options.networks import (
    AskingOptions,
    CalibrateOptions,
    ExportOptions,
    InitOptions,
    ListOptions,
    MarkdownOptions,
    ShowOptions,
)
from cnnx.options.shared import CommonOptions, JudgedReportOptions, ReportOptions
from cnnx.pipeline.export.options import with_options
from cnnx.recipe import read_recipe
from tools.docs.help_page import leaves

VERBS = {
    "list": (cnnx.list_networks, ListOptions, None),
    "show": (cnnx.show, ShowOptions, MarkdownOptions),
    "init": (cnnx.init, InitOptions, AskingOptions),
    "export": (cnnx.export, ExportOptions, JudgedReportOptions),
    "calibrate": (cnnx.calibrate, CalibrateOptions, None),
    "build": (cnnx.build, EngineOptions, None),
    "validate": (cnnx.validate, ValidateOptions, JudgedReportOptions),
    "bench": (cnnx.bench, BenchOptions, ReportOptions),
    "compare": (cnnx.compare, CompareOptions, JudgedReportOptions),
    "survey": (cnnx.survey, SurveyOptions, None),
    "report": (cnnx.write_report, ThumbnailOptions, FileOptions),
    "classify": (cnnx.classify, ClassifyOptions, None),
    "preflight": (cnnx.preflight, PreflightOptions, None),
    "package": (cnnx.write_package, PackageOptions, None),
    "inspect": (cnnx.inspect, InspectOptions, None),
    "sign": (cnnx.sign, SignOptions, None),
    "verify": (cnnx.verify, VerifyOptions, None),
    "bom": (cnnx.bom, BomOptions, None),
    "diagnose": (cnnx.diagnose, DiagnoseOptions, ComparingOptions),
    "tune": (cnnx.tune, TuneOptions, JudgedReportOptions),
    "doctor": (cnnx.prove, ProofOptions, ArchiveOptions),
    "cache": (cnnx.cache, CacheOptions, None),
    "fleet join": (cnnx.fleet_join, JoinOptions, None),
    "fleet up": (cnnx.fleet_up, UpOptions, None),
    "fleet status": (cnnx.fleet_status, StatusOptions, None),
    "fleet down": (cnnx.fleet_down, DownOptions, None),
    "fleet survey": (cnnx.fleet_survey, FleetSurveyOptions, None),
    "fleet validate": (cnnx.fleet_validate, FleetValidateOptions, JudgedReportOptions),
    "fleet calibrate": (cnnx.fleet_calibrate, FleetCalibrateOptions, None),
}
"""Verb -> its Python function, its options, and those that only say how the command line shows results."""
COMMANDS = dict(leaves(get_command(app)))
SUBJECTS = {"survey": "models", "fleet survey": "models"}
"""What is the first argument in Python, and an option on the command line."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "help.md"


def page_rows(verb):
    """Flag of docs/help.md -> (help, default) as written there."""
    section = PAGE.read_text(encoding="utf-8").split(f"## `cnnx {verb}")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `--")]
    return {
        flags.strip(" `").split(", ")[0]: (said.strip(), default.strip(" `")) for flags, said, default in rows
    }


def fields_of(*kinds):
    return [field for kind in kinds if kind for field in dataclasses.fields(kind)]


def same_default(field, parameter):
    """Whether the command line gives what Python gives where the user gives nothing."""
    if field.default is dataclasses.MISSING:
        return parameter.required
    if text := field.metadata["text"]:
        return parameter.default == text and field.metadata["read"](text) == field.default
    if field.default == ():
        return not parameter.default
    return getattr(parameter.default, "value", parameter.default) == field.default


def test_every_verb_is_here():
    assert set(VERBS) == set(COMMANDS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_option_reaches_the_command_python_and_the_docs_with_one_default(verb):
    function, kind, own = VERBS[verb]
    command = {p.name: p for p in COMMANDS[verb].params if p.param_type_name == "option"}
    python = inspect.signature(function).parameters
    page = page_rows(verb)
    command.pop(SUBJECTS.get(verb), None)
    for field in fields_of(kind, own, CommonOptions):
        flags = field.metadata["flags"] or {field.name: field.metadata["help"]}
        for name, said in flags.items():
            parameter = command.pop(name)
            assert parameter.help == said == page[parameter.opts[0]][0]
            shown = parameter.default if parameter.default not in (None, False, ()) else ""
            assert page[parameter.opts[0]][1] == str(getattr(shown, "value", shown))
            assert (not parameter.default) if field.metadata["flags"] else same_default(field, parameter)
    assert not command, "an option of the command that no dataclass states"
    for field in fields_of(kind):
        empty = inspect.Parameter.empty
        assert python[field.name].default == (
            empty if field.default is dataclasses.MISSING else field.default
        )
        assert field.metadata["help"] in function.__doc__


def test_only_what_shows_or_keeps_a_result_is_for_the_command_line_alone():
    own = {field.name for _, _, kind in VERBS.values() for field in fields_of(kind, CommonOptions)}
    assert own == {
        "as_json", "verbose", "debug", "report", "plot", "markdown", "archive", "yes", "strict",
        "allow_inconclusive", "out", "survey", "target", "data",
    }  # fmt: skip


def test_an_option_that_verbs_share_says_the_same_everywhere():
    said = {}
    for _, kind, own in VERBS.values():
        for field in fields_of(kind, own):
            said.setdefault(field.name, {}).setdefault(field.metadata["help"], []).append(kind)
    differ = {name: set(texts) for name, texts in said.items() if len(texts) > 1}
    # A bundle knows its weights, several engines can be measured, sizes are of different things, and a bundle
    # is a folder. A recipe names a file of class names, and an export may also take those of ImageNet. ONNX
    # Runtime builds no engines. An export chooses the reference, a validation finds it. A key signs,
    # or verifies. A machine joins a head, or asks it, or is already one of its nodes. Each verb of a fleet
    # says what its device does. What is limited is images, or the time of a job.
    several = {"weights", "engine", "batch", "images", "out", "force", "class_names", "target", "reference"}
    several |= {"key", "address", "on", "limit"}
    assert set(differ) == several


def test_a_part_of_the_options_is_taken_as_an_object():
    @takes(SurveyOptions, "plan")
    def function(models, plan):
        return plan

    plan = function([], cnnx.SurveyPlan(seconds=1, target="ort"), target="rtx", out="here")
    assert plan == SurveyOptions(seconds=1, target="rtx", out="here")
    assert function(plan=plan, models=[]) == plan
    with pytest.raises(TypeError, match="must be SurveyOptions, not ExportOptions"):
        function([], ExportOptions(), out="here")


def test_the_command_line_reads_units_and_lists():
    def given(*arguments):
        seen = {}

        @command_of(EngineOptions if "--workspace" in arguments else BenchOptions)
        def command(ui, options):
            seen["options"] = options

        toy = typer.Typer()
        toy.command()(command)
        done = CliRunner().invoke(toy, arguments)
        return seen.get("options"), done

    assert given("--workspace", "3")[0].workspace_bytes == 3 * 2**20
    options = given("--batch", "1,8", "--engine", "a", "--engine", "b")[0]
    assert (options.batch, options.engine) == ((1, 8), ("a", "b"))
    for wrong in ("1,x", "0", "", "1,,2", "-1", "1.5"):
        _, done = given("--batch", wrong)
        assert done.exit_code == 2 and "expected a list of sizes" in done.stderr


@pytest.mark.parametrize(
    ("keywords", "says"),
    [({"calibration_image": 3}, "did you mean 'calibration_images'"), ({"speed": 9}, "no option 'speed'")],
)
def test_an_unknown_keyword_is_refused_with_the_nearest_one(keywords, says):
    with pytest.raises(TypeError, match=says):
        cnnx.calibrate("lenet5", **keywords)


def test_options_are_an_object_keywords_or_both_and_keywords_win():
    with pytest.raises(UsageError, match="--folds 0"):
        cnnx.calibrate("lenet5", CalibrateOptions(folds=3), folds=0)
    with pytest.raises(TypeError, match="must be CalibrateOptions, not ExportOptions"):
        cnnx.calibrate("lenet5", ExportOptions())


def test_what_is_given_overrides_the_recipe_and_nothing_else_does():
    recipe = read_recipe("lenet5")
    assert with_options(recipe, ExportOptions()) == recipe
    options = ExportOptions(calibration_images=7, validation_data="val/", equalize=False)
    assert overrides(options) == {
        "calibration.images": 7, "validation.data": "val/", "precision.equalize": False,
    }  # fmt: skip
    changed = with_options(recipe, options)
    assert (changed.calibration.images, changed.validation.data) == (7, "val/")
    assert changed.calibration.data == recipe.calibration.data and not changed.precision.equalize
    with pytest.raises(UsageError, match="invalid --validation-images 0"):
        with_options(recipe, ExportOptions(validation_images=0))


@pytest.mark.parametrize("wrong", [("--method", "xyz"), ("--method", "aut"), ("--target", "xyz")])
def test_choices_that_a_refusal_names_include_auto(wrong):
    done = CliRunner().invoke(app, ["export", "lenet5", "--int8", *wrong])
    assert done.exit_code == 2 and "auto" in done.stderr


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cnnx.export(3), "model must be str, Path or torch.nn.Module, not int"),
        (lambda: cnnx.export("lenet5", out=3), "out must be str | Path | None, not int: 3"),
        (lambda: cnnx.export("lenet5", calibration_images="12"), "calibration_images must be int | None"),
        (lambda: cnnx.export("lenet5", repair=1), "repair must be bool, not int: 1"),
        (lambda: cnnx.export("lenet5", sm=86), "sm must be tuple[int, ...], not int: 86"),
        (lambda: cnnx.bench(Path("b"), seconds="3"), "seconds must be float, not str: '3'"),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_argument(call, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        call()
