"""The HTML report: one file with its pictures inside. Needs the extra `report`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnx.errors import MissingExtra
from cnnx.record import Record, Unverified
from cnnx.report.damage import draw_damage
from cnnx.report.power import draw_power
from cnnx.report.tables import (
    graph_words,
    measured_tables,
    pace,
    rail_table,
    self_test_table,
    unverified_tables,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; the marker says the verdict once more.
_VERDICTS = {
    "passed": ("#009E73", "o"),
    "failed": ("#D55E00", "X"),
    "inconclusive": ("#E69F00", "D"),
    "not judged": ("#999999", "s"),
}

_PAGE = """{% macro drawn(table) %}
<table><tr>{% for column in table.columns %}
<th{% if column in table.right %} class="number"{% endif %}>{{ column }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for column, cell in zip(table.columns, row) -%}
<td{% if column in table.right %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% for remark in table.remarks %}<p>{{ remark }}</p>{% endfor %}
{% endmacro -%}
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>cnnx report</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1rem } td, th { padding: .25rem .75rem; text-align: left }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd } .number { text-align: right }
.failed { color: #D55E00; font-weight: 600 } .passed { color: #007a58 } svg { max-width: 100%; height: auto }
.wide { overflow-x: auto }
</style></head><body>
<h1>cnnx report</h1>
{% for record, picture in verdicts %}
<h2 class="{{ record.result.verdict }}">{{ record.result.verdict }}
{{- ", judged anew" if record.kind == "judgement" }}: {{ record.subject }}</h2>
<p>{{ record.date[:19] }}, {{ record.result.images }} images of {{ record.result.image_set }},
{{ record.result.flips | length }} first classes changed</p>
{% for reason in record.result.reasons %}<p>Not judged: {{ reason }}</p>{% endfor %}
{{ picture }}
<table><tr><th>rate</th><th>value</th><th>95 % interval</th><th>threshold</th><th>verdict</th></tr>
{% for gate in record.result.gates %}<tr><td>{{ gate.name }}</td>
<td class="number">{{ "%.4f" | format(gate.value) }}</td>
<td>{{ "%.4f" | format(gate.interval.low) }} .. {{ "%.4f" | format(gate.interval.high) }}</td>
<td class="number">{{ gate.threshold }}</td><td class="{{ gate.verdict }}">{{ gate.verdict }}</td></tr>
{% endfor %}</table>
{% endfor %}
{% if self_tests %}<h2>{{ self_tests.title }}</h2><div class="wide">{{ drawn(self_tests) }}</div>{% endif %}
{% for record, picture in diagnoses %}
<h2>damage along the network: {{ record.subject }}</h2>
<p>{{ record.date[:19] }}, {{ record.result.images }} images of {{ record.result.image_set }}</p>
{{ picture }}
{% for sentence in record.result.reading %}<p>{{ sentence }}</p>{% endfor %}
{% endfor %}
{% if latencies %}<h2>Latency</h2>{{ latencies }}
{% for table in tables %}{% if not loop.first %}<h3>{{ table.title }}</h3>{% endif %}
<div class="wide">{{ drawn(table) }}</div>{% endfor %}{% endif %}
{% if energies %}<h2>Energy of a picture</h2>
{% for record, rails, picture in energies %}
<h3>{{ record.subject }}</h3>
<p>{{ record.date[:19] }}, {{ record.result.sensor }}: {{ record.result.why }};
runs {{ pace(record.result) }}, batch {{ record.result.batch }}
{%- if record.result.no_total %}; {{ record.result.no_total }}{% endif %}</p>
{{ picture }}
{{ drawn(rails) }}
{% endfor %}{% endif %}
{% for table in unverified %}<h2>{{ table.title }}</h2><div class="wide">{{ drawn(table) }}</div>{% endfor %}
</body></html>
"""


def page_from_records(records: Sequence[Record], unverified: Sequence[Unverified] = ()) -> str:
    """The page: a picture and a table a verdict, a table of self-tests, a picture a diagnosis, the samples of
    every measurement with tables of latency, memory and layers, and of energy its power over time with a
    table.

    Raises:
        MissingExtra: jinja2 or matplotlib is absent.
    """
    try:
        import jinja2
        import markupsafe
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra(str(error.name), "report", purpose="an HTML report") from None
    mpl.use("svg")
    verdicts = [record for record in records if record.kind in ("validation", "judgement")]
    tested = [record for record in records if record.kind == "selftest"]
    measured = [record for record in records if record.kind == "benchmark"]
    used = [record for record in records if record.kind == "energy"]
    diagnosed = [record for record in records if record.kind == "diagnosis"]
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        verdicts=[
            (record, markupsafe.Markup(_draw(_intervals, record.result["gates"]))) for record in verdicts
        ],
        self_tests=self_test_table(tested) if tested else None,
        diagnoses=[(record, markupsafe.Markup(_damage(record))) for record in diagnosed],
        latencies=markupsafe.Markup(_draw(_latencies, measured)) if measured else "",
        energies=[
            (record, rail_table(record), markupsafe.Markup(_inline(draw_power(record.result))))
            for record in used
        ],
        pace=pace,
        unverified=unverified_tables(unverified),
        tables=measured_tables(measured) if measured else (),
        zip=zip,
    )


def _damage(record: Record) -> str:
    return _inline(draw_damage(record.result, "svg").decode())


def _draw(paint: Any, rows: Sequence[Any]) -> str:
    """A picture with a line a row, as an inline SVG."""
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
    """A picture without the head of a file of its own."""
    return svg[svg.index("<svg") :]


def _intervals(axes: Axes, gates: Sequence[Any]) -> None:
    for row, gate in enumerate(gates):
        color, marker = _VERDICTS[gate["verdict"]]
        interval = gate["interval"]
        axes.plot([interval["low"], interval["high"]], [row, row], color=color, linewidth=3, alpha=0.6)
        axes.plot(gate["value"], row, marker, color=color, markersize=9)
        axes.plot([gate["threshold"]] * 2, [row - 0.35, row + 0.35], color="black", linewidth=2)
    axes.set_yticks(range(len(gates)), [gate["name"] for gate in gates])
    axes.set_xlabel("rate: mark with its 95 % interval; black bar: threshold")


def _series(record: Record) -> list[int]:
    """The samples that a measurement's figures are of."""
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
        f"{r.subject.engine or r.subject.artefact} on {r.subject.runtime}{graph_words(r.result)}"
        for r in records
    ]
    axes.set_yticks(range(len(samples)), names)
    what = " and ".join(dict.fromkeys(r.result["figures"]["of"] for r in records))
    axes.set_xlabel(
        f"milliseconds a batch, {what}: median, quartiles, 1st to 99th percentile, samples beyond"
    )
    if max(map(max, samples)) > 20 * min(map(min, samples)):
        axes.set_xscale("log")
