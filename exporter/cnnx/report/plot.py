"""Draws one chart of a report to a file of its own. Needs the extra `report`."""

from __future__ import annotations

from pathlib import Path

from cnnx.errors import UsageError
from cnnx.report.document import Chart
from cnnx.report.page import missing
from cnnx.store.files import atomic_file, check_place

FORMATS = (".svg", ".png")
_INK = "#222222"
_FONT = "Arial, Helvetica, sans-serif"  # its widths are known where it is drawn
_NARROWEST, _WIDEST, _PER_ROW = 500, 2000, 24  # pixels


def check_plot(path: Path) -> None:
    """Check, before the work starts, that a plot can be written.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: altair or vl-convert-python is not installed.
        WriteFailed: the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        known = " or ".join(FORMATS)
        raise UsageError(
            f"unknown plot format {path.suffix or path.name!r}",
            where=str(path),
            hint=f"use the suffix {known}",
        )
    if lacks := missing("a plot", ("altair", "vl_convert")):
        raise lacks
    check_place(path)


def write_plot(chart: Chart, path: Path, *, width: int | None = None) -> None:
    """Draw a chart on white, to an .svg or .png.

    Args:
        chart: the chart.
        path: the file; its suffix chooses the format.
        width: in pixels; None: by the number of rows.

    Raises:
        UsageError: the suffix is not a known format.
        MissingExtra: altair or vl-convert-python is not installed.
        WriteFailed: the file cannot be written.
    """
    check_plot(path)
    import vl_convert

    from cnnx.report.page.charts import VEGA_LITE, spec_of

    by_rows = min(_WIDEST, max(_NARROWEST, _PER_ROW * len(chart.rows)))
    spec = {**spec_of(chart, ink=_INK, width=width or by_rows, font=_FONT), "background": "white"}
    if path.suffix.lower() == ".svg":
        content = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE).encode()
    else:
        content = vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=2)
    with atomic_file(path) as draft:
        draft.write_bytes(content)
