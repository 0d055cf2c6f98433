"""Writes the HTML report: one file, plots included. Needs the extra `report`."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cnnx.errors import MissingExtra
from cnnx.record import Record
from cnnx.report.damage import draw_damage
from cnnx.report.power import draw_power
from cnnx.report.records import Section
from cnnx.report.words import graph_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette for colour-blind readers; the marker repeats the verdict.
_VERDICTS = {
    "passed": ("#009E73", "o"),
    "failed": ("#D55E00", "X"),
    "inconclusive": ("#E69F00", "D"),
    "not judged": ("#999999", "s"),
}

_PAGE = """{% macro show(block, drawing="") -%}
{% if block.columns is defined %}
<h2>{{ block.title }}</h2>
{{ drawing }}
<div class="wide"><table><tr>{% for column in block.columns %}
<th{% if column.right %} class="number"{% endif %}>{{ column.heading }}</th>{% endfor %}</tr>
{% for row in block.rows %}<tr>{% for column, cell in zip(block.columns, row) -%}
<td class="{{ [("number" if column.right), cell.tone] | select | join(" ") }}">{{ cell.text }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>
{% for remark in block.remarks %}{{ show(remark) }}{% endfor %}
{%- else %}<p{% if block.tone %} class="{{ block.tone }}"{% endif %}>{{ block }}
{%- if block.hint %} Hint: {{ block.hint }}.{% endif %}</p>
{{ drawing }}
{% endif %}
{%- endmacro -%}
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cnnx report</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1rem }
td, th { padding: .25rem .75rem; text-align: left; vertical-align: top; white-space: pre-line }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd } .number { text-align: right }
.bad { color: #D55E00; font-weight: 600 } .good { color: #007a58 } .open { color: #8a6100 }
svg { max-width: 100%; height: auto } .wide { overflow-x: auto }
</style></head><body>
<h1>cnnx report</h1>
{% for section, drawing in sections %}<section>
{% for block in section.blocks %}{{ show(block, drawing if loop.first else "") }}{% endfor %}</section>
{% endfor %}
</body></html>
"""


def page(sections: Iterable[Section]) -> str:
    """The HTML page: plots and tables of each section.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import markupsafe
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra(str(error.name), "report", purpose="an HTML report") from None
    mpl.use("svg")
    drawn = [(section, markupsafe.Markup("\n".join(_drawings(section)))) for section in sections]
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(_PAGE)
    return template.render(sections=drawn, zip=zip)


def _drawings(section: Section) -> Iterator[str]:
    """A plot for each verdict, diagnosis and energy record, and one for all latencies."""
    if any(record.kind == "benchmark" for record in section.records):
        yield _draw(_latencies, section.records)
    for record in section.records:
        # Figures with a unit have no common axis with rates.
        gates = [gate for gate in record.result.get("gates", ()) if gate["interval"] and not gate.get("unit")]
        if gates:
            yield _draw(_intervals, gates)
        if record.kind == "diagnosis":
            yield _inline(draw_damage(record.result, "svg").decode())
        if record.kind == "energy":
            yield f"<p>{html.escape(str(record.subject))}</p>{_inline(draw_power(record.result))}"


def _draw(paint: Any, rows: Sequence[Any]) -> str:
    """A plot with one line per row, as inline SVG."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.45 * len(rows)), layout="constrained")
    paint(axes, rows)
    axes.set_yticks(range(len(rows)))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return _inline(buffer.getvalue())


def _inline(svg: str) -> str:
    """An SVG without its file header."""
    return svg[svg.index("<svg") :]


def _intervals(axes: Axes, gates: Sequence[Any]) -> None:
    for row, gate in enumerate(gates):
        color, marker = _VERDICTS[gate["verdict"]]
        interval = gate["interval"]
        axes.plot([interval["low"], interval["high"]], [row, row], color=color, linewidth=3, alpha=0.6)
        axes.plot(gate["value"], row, marker, color=color, markersize=9)
        axes.plot([gate["threshold"]] * 2, [row - 0.35, row + 0.35], color="black", linewidth=2)
    axes.set_yticks(range(len(gates)), [gate["name"] for gate in gates])
    axes.set_xlabel("rate with 95 % interval; black bar: threshold")


def _series(record: Record) -> list[int]:
    """The samples behind a measurement's figures."""
    latency = record.result["latency"]
    if record.result["figures"]["of"] == "end to end":
        return list(latency["samples_ns"])
    parts = latency["parts"]
    return [sum(times) for times in zip(parts["h2d_ns"], parts["compute_ns"], parts["d2h_ns"], strict=True)]


def _latencies(axes: Axes, records: Sequence[Record]) -> None:
    samples = [[ns / 1e6 for ns in _series(record)] for record in records]
    axes.boxplot(
        samples,
        positions=range(len(samples)),
        orientation="horizontal",
        whis=(1, 99),
        widths=0.6,
        medianprops={"color": "#D55E00", "linewidth": 2},
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#999999"},
    )
    names = [
        f"{r.subject.network} {r.subject.precision}, batch {r.result['latency']['batch']}\n"
        f"{r.subject.engine or r.subject.artefact} on {r.subject.runtime} {graph_words(r.result)}"
        for r in records
    ]
    axes.set_yticks(range(len(samples)), names)
    what = " and ".join(dict.fromkeys(r.result["figures"]["of"] for r in records))
    axes.set_xlabel(f"ms per batch, {what}: median, quartiles, 1st to 99th percentile, outliers")
    if max(map(max, samples)) > 20 * min(map(min, samples)):
        axes.set_xscale("log")
