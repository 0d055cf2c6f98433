"""Draws the charts of a report with Altair. Needs the extra `report`.

Texts and lines take the color of the page (`currentColor`), so that one chart serves a light and a dark page.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from cnnx.report.document import Chart
from cnnx.report.page.load_charts import LOAD_CHARTS
from cnnx.report.page.marks import INK
from cnnx.report.page.run_charts import RUN_CHARTS
from cnnx.report.page.survey_charts import SURVEY_CHARTS
from cnnx.report.page.tune_charts import TUNE_CHARTS

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that Altair writes specifications for, as vl-convert names it."""


CHARTS = {**RUN_CHARTS, **LOAD_CHARTS, **TUNE_CHARTS, **SURVEY_CHARTS}
"""Kind of a chart -> what draws its rows."""

_FONT = "system-ui, sans-serif"
_LABEL = 170  # pixels that a name may take; the rest is in the tooltip


def spec_of(
    chart: Chart, *, ink: str = INK, width: int | str = "container", font: str = _FONT
) -> dict[str, Any]:
    """The Vega-Lite specification of a chart, with its rows in it.

    Args:
        chart: a chart of a kind in `CHARTS`.
        ink: color of texts and lines.
        width: width in pixels, or "container".
        font: font of all texts.
    """
    drawn = CHARTS[chart.kind](chart.rows)
    drawn = drawn.properties(
        width=width, background="transparent", autosize={"type": "fit-x", "contains": "padding"}
    )
    drawn = drawn.configure(font=font)
    drawn = drawn.configure_axis(
        labelColor=ink,
        titleColor=ink,
        gridColor=ink,
        gridOpacity=0.15,
        domainColor=ink,
        domainOpacity=0.4,
        tickColor=ink,
        tickOpacity=0.4,
        labelFontSize=12,
        titleFontSize=12,
        titleFontWeight="normal",
        labelLimit=_LABEL,
    )
    drawn = drawn.configure_legend(
        labelColor=ink,
        titleColor=ink,
        labelFontSize=12,
        orient="top",
        title=None,
        labelLimit=300,
        columns=3,
        symbolOpacity=1,
    )
    drawn = drawn.configure_view(stroke=None)
    found: dict[str, Any] = drawn.to_dict()
    return found
