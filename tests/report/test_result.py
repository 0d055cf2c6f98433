"""Results in a Python prompt and in a notebook."""

from __future__ import annotations

import html
import re

import pytest

import cnnx
from cnnx.report.notebook import as_html
from cnnx.report.table import Cell, Column, Facts, Remark, table_of
from cnnx.report.terminal import as_text
from cnnx.resources import shared_folder

_BUNDLE = {
    "inspect": cnnx.inspect,
    "validate": cnnx.validate,
    "bench": lambda bundle: cnnx.bench(bundle, seconds=0.1),
}


def _shown(page: str) -> str:
    """The text of a fragment of HTML, without white space."""
    return re.sub(r"\s", "", html.unescape(re.sub(r"<[^>]*>", "", page)))


@pytest.mark.parametrize("verb", ["list", "show", *_BUNDLE])
def test_a_result_shows_in_a_prompt_and_in_a_notebook_what_its_command_prints(verb, tiny_bundle):
    if verb in _BUNDLE:
        result = _BUNDLE[verb](tiny_bundle)
    else:
        result = cnnx.list_networks("resnet*") if verb == "list" else cnnx.show("lenet5")
    blocks = list(result.blocks())
    assert blocks and repr(result) == as_text(blocks) and "object at" not in repr(result)
    page = _shown(result._repr_html_())
    for block in blocks:
        cells = [cell for row in getattr(block, "rows", ()) for cell in row]
        for text in [block] if isinstance(block, Remark) else cells:
            text = text.text if isinstance(text, Cell) else str(text)
            assert re.sub(r"\s", "", text) in page


def test_hostile_names_stay_text_in_a_notebook():
    name = "<script>alert(1)</script>&[bold]"
    table = table_of(name, [Column(name, str)], [[name]], remarks=[Remark(name, name, "bad", name)])
    page = as_html([table, Facts(((name, name),)), Remark(name)])
    assert "<script" not in page and "[bold]" in page
    assert page.count(html.escape(name)) == 9
    assert page.count("<table>") == page.count("</table>") == 2


def test_a_path_is_taken_where_a_string_is(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes((shared_folder("recipes") / "lenet5.toml").read_bytes())
    assert cnnx.show(recipe).layers == cnnx.show(str(recipe)).layers == cnnx.show("lenet5").layers
