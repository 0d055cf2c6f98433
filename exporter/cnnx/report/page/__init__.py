"""Writes a report as one HTML page that sends no request. Needs the extra `report`.

Vega, which draws the charts, is inlined with its expression interpreter, so that the page's
Content-Security-Policy allows its own scripts, by hash, and nothing else: no `unsafe-eval`, no network.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from cnnx.errors import MissingExtra

if TYPE_CHECKING:
    from cnnx.report.document import Chart, Report


_MOST_CARDS = 60
_NEEDS = {"jinja2": "jinja2", "altair": "altair", "vl_convert": "vl-convert-python"}


def missing(purpose: str, modules: Iterable[str] = _NEEDS) -> MissingExtra | None:
    """The error for the first of these modules that is not installed, if one is not."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            return MissingExtra(_NEEDS[module], "report", purpose=purpose)
    return None


def page(report: Report) -> str:
    """The HTML page.

    Raises:
        MissingExtra: jinja2, altair or vl-convert-python is not installed.
    """
    if lacks := missing("an HTML report"):
        raise lacks
    import jinja2

    from cnnx.report.page.charts import spec_of

    charts = [chart for section in report.sections for chart in section.charts]
    specs = json.dumps([_drawn(chart, spec_of) for chart in charts], separators=(",", ":"))
    specs = specs.replace("<", "\\u003c")
    scripts = [*([_vega()] if charts else []), _file("page.js")]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _file("page.html.j2")
    )
    return template.render(
        report=report,
        places={id(chart): place for place, chart in enumerate(charts)},
        place_of=id,
        style=_file("page.css"),
        specs=specs,
        scripts=scripts,
        policy=_policy(scripts),
        most_cards=_MOST_CARDS,
        zip=zip,
    )


def _drawn(chart: Chart, draw: Callable[[Chart], dict[str, Any]]) -> dict[str, Any] | None:
    """The specification of a chart; None if its rows are not those of its kind, as a newer cnnx writes."""
    try:
        return draw(chart)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _policy(scripts: list[str]) -> str:
    """The Content-Security-Policy: these scripts, the page's styles, images in the page, and nothing else."""
    hashes = " ".join(f"'sha256-{_hash(each)}'" for each in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, in the version that Altair writes specifications for."""
    import vl_convert

    from cnnx.report.page.charts import VEGA_LITE

    script: str = vl_convert.javascript_bundle("window.cnnxEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return script.replace("</script", "<\\/script")
