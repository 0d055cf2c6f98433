"""Questions of `cnnx init`, as a user at a terminal sees them."""

import pytest
from typer.testing import CliRunner

from cnnx.cli.app import app
from cnnx.recipe import read_recipe


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr("cnnx.cli.init.on_terminal", lambda: True)


def run(*arguments, answers=""):
    return CliRunner().invoke(app, ["init", *map(str, arguments)], input=answers, env={"COLUMNS": "200"})


def test_an_answer_that_cannot_be_used_is_asked_again(terminal, tiny):
    (tiny.parent / "names.txt").write_text("\n".join("abcdefghij"))
    done = run(tiny, answers=f"greay\ngray\nabsent.txt\n{tiny.parent / 'names.txt'}\n")
    assert done.exit_code == 0 and "did you mean 'gray'?" in done.stderr and "absent.txt" in done.stderr
    recipe = read_recipe(str(tiny.with_suffix(".toml")))
    assert not recipe.preprocessing.assumed and recipe.model.labels == "names.txt"


def test_without_an_answer_the_recipe_is_marked(terminal, tiny):
    done = run(tiny, answers="\n\n")
    assert done.exit_code == 0 and "note: Preprocessing is assumed" in done.stdout
    assert read_recipe(str(tiny.with_suffix(".toml"))).preprocessing.assumed


@pytest.mark.parametrize("flag", ["--yes", "--json"])
def test_nothing_is_asked_where_nobody_would_answer(terminal, tiny, flag):
    done = run(tiny, flag)
    assert done.exit_code == 0 and "Preprocessing (" not in done.stderr
    assert "Preprocessing is assumed" in done.stdout or '"assumed": [' in done.stdout


def test_without_a_terminal_nothing_is_asked(tiny):
    done = run(tiny)
    assert done.exit_code == 0 and "note: Preprocessing is assumed" in done.stdout and not done.stderr
