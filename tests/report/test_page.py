"""The HTML report in a browser: from disk, without a request, with charts, search and sorting that work."""

from __future__ import annotations

import html
import importlib
import importlib.resources
import itertools

import pytest

from cnnx.pipeline.survey.figures import figures_of
from cnnx.report.document import Card, CardFigure, Chart, FlippedImage, Flips, Report, Section
from cnnx.report.files import write_document
from cnnx.report.table import Cell, Column, Figures, Remark, judged, table_of
from tests.pipeline.survey.test_charts import ROWS as SURVEYED

charts = pytest.importorskip("cnnx.report.page.charts", reason="HTML reports need the extra report")

HOSTILE = "<img src=x onerror=\"document.title='owned'\">'\"</script>&{{7*7}}"
SURVEY_CHARTS = importlib.import_module("cnnx.report.page.survey_charts").SURVEY_CHARTS
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def rows_of(kind):
    """Rows of a chart, with names that are markup."""
    names = (HOSTILE, "conv2", "fc")
    if kind == "gates":
        return [
            {"gate": name, "value": 0.9, "low": 0.8, "high": 0.95, "threshold": 0.85, "verdict": verdict}
            for name, verdict in zip(names, ("passed", "failed", "inconclusive"), strict=True)
        ]
    if kind == "damage":
        states = zip(names, ("INT8", "not finite", "not in INT8"), (0.1, None, None), strict=True)
        return [
            {
                "place": place,
                "layer": name,
                "op": "Conv",
                "nats": nats,
                "share": 0.5,
                "flips": 1,
                "state": state,
            }
            for place, (name, state, nats) in enumerate(states)
        ]
    if kind == "tensors":
        return [
            {"place": place, "tensor": name, "computed": HOSTILE, "series": series, "db": db, "state": state}
            for place, (name, db, state) in enumerate(
                zip(names, (40, None, 8), ("", "", "falls"), strict=True)
            )
            for series in ("engine", "expected")
        ]
    if kind == "front":
        states = ("chosen", "FP16", "passes", "fails the gates", "the bundle's")
        return [
            {
                "number": number,
                "ratio": 0.7 + number / 20,
                "low": 0.65 + number / 20,
                "high": 0.75 + number / 20,
                "nats": None if number == 3 else 0.01 / (1 + number),
                "agreement": 0.98,
                "layers": 5,
                "shortcuts": 2,
                "state": state,
                "front": number < 2,
            }
            for number, state in enumerate(states)
        ]
    if kind == "layers":
        return [
            {"place": place, "layer": name, "op": "Conv", "kind": "compute", "ms": 0.1, "share": 0.3}
            for place, name in enumerate(names)
        ]
    if kind == "latency":
        found = [
            {"run": name, "mark": "bin", "low": low, "high": low + 1, "density": 1 / low}
            for name, low in itertools.product(names, (1, 2))
        ]
        quantiles = {"mark": "quantiles", "p1": 1, "p25": 1.2, "p50": 1.5, "p75": 2, "p99": 3}
        return [*found, *({"run": name, **quantiles} for name in names)]
    if kind == "times":
        return [
            {"run": name, "second": second, "low": 0.9, "middle": 1, "high": 1.1, "ms": 2.0}
            for name, second in itertools.product(names, range(3))
        ]
    if kind == "memory":
        return [
            {"run": name, "part": part, "place": place, "mib": 10}
            for name, (place, part) in itertools.product(names, enumerate(("libraries", HOSTILE)))
        ]
    if kind == "power":
        load = {"mark": "load", "rail": None, "watts": None, "second": 1, "until": 3}
        powers = itertools.product(names, range(4))
        return [load, *({"mark": "power", "rail": name, "second": s, "watts": 5 + s} for name, s in powers)]
    if kind == "spent":
        parts = (("layers", 0, 0.6), ("Q/DQ", 4, 0.4))
        return [
            {"run": name, "part": part, "place": place, "share": share}
            for name, (part, place, share) in itertools.product(names, parts)
        ]
    if kind == "roofline":
        roof = {"mark": "roof", "type": "int8"}
        dots = {"mark": "layer", "type": "int8", "share": 0.3, "attained": "40%", "bound": "memory"}
        return [
            *({**roof, "intensity": at, "tops": min(at, 200)} for at in (1, 200, 900)),
            *({**dots, "layer": name, "intensity": 9.5, "tops": 4.0} for name in names),
        ]
    if kind == "streams":
        found = [
            {"streams": number, "stream": stream, "series": series, "ms": 3.0 * number}
            for number in (1, 2, 3)
            for stream in range(1, number + 1)
            for series in ("p50", HOSTILE)
        ]
        return [*found, {"series": "next frame", "ms": 33.3}]
    if kind == "throughput":
        return [{"streams": number, "rate": 100.0 * number} for number in range(1, 10)]
    if kind == "soak":
        held = [{"mark": "throttled", "at": 2, "until": 3, "time": "minutes"}]
        lines = itertools.product(("p50", HOSTILE), range(5))
        line = {"mark": "line", "axis": "ms", "time": "minutes"}
        return [*held, *({**line, "series": name, "at": at, "value": 5.0 + at} for name, at in lines)]
    if kind in SURVEY_CHARTS:
        found = {chart.kind: chart.rows for chart in figures_of([*SURVEYED, *hostile_rows()])}
        return found[kind]
    raise AssertionError(f"add rows for the chart {kind}")


def hostile_rows():
    """A network of a survey with a hostile name."""
    return [
        {**each, "model": HOSTILE, "subject": {**each["subject"], "network": HOSTILE}}
        for each in SURVEYED[:2]
    ]


def hostile_report():
    """A report of everything that a page can hold."""
    columns = (
        Column("layer", lambda row: row[0]),
        Figures("ms", lambda row: row[1]),
        Column("verdict", lambda row: judged(row[2])),
    )
    rows = [
        (f"layer{index} {HOSTILE}", f"{index % 7}.5", "passed" if index % 2 else "failed")
        for index in range(40)
    ]
    long = table_of("A long table", columns, [rows], remarks=[Remark(HOSTILE, "note", "open", hint=HOSTILE)])
    short = table_of(HOSTILE, columns, [rows[:3]])
    flips = tuple(
        FlippedImage(
            f"image{index}", HOSTILE, ("cat", HOSTILE), ("dog" if index % 2 else "cow", "cat"), 0.1, PIXEL
        )
        for index in range(6)
    )
    figures = (CardFigure("latency p50", "2.0 ms", HOSTILE, "bad"), CardFigure("memory", "10 MiB"))
    cards = tuple(
        Card(HOSTILE, "where", verdict, tone, figures)
        for verdict, tone in (("passed", "good"), ("failed", "bad"), ("original", None))
    )
    return Report(
        "records",
        f"A report of {HOSTILE}",
        "2026-01-02T03:04:05.000000+00:00",
        "0.2",
        cards,
        (
            Section(
                "Charts",
                charts=tuple(
                    Chart(kind, f"{kind} {HOSTILE}", HOSTILE, tuple(rows_of(kind))) for kind in charts.CHARTS
                ),
            ),
            Section("Tables", (Remark(HOSTILE),), tables=(long, short)),
            Section("Flipped images", flips=(Flips(HOSTILE, 9, flips),)),
        ),
        (),
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_document(hostile_report(), file)
    assert file.stat().st_size < 5_000_000
    return file


@pytest.fixture(params=[(390, "dark"), (1280, "light")], ids=["narrow, dark", "wide, light"])
def opened(request, browser, page_file):
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda made: asked.append(made.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_function(
        "document.querySelectorAll('.chart.drawn').length === document.querySelectorAll('.chart').length"
    )
    yield page, width
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert said == [] and page.title().startswith("A report of <img")
    page.close()


def test_charts_are_drawn_and_nothing_is_wider_than_the_page(opened):
    page, width = opened
    assert page.locator(".chart svg").count() == len(charts.CHARTS)
    marks = page.eval_on_selector_all(
        ".chart svg", "all => all.map(one => one.querySelectorAll('[class*=mark-] > *').length)"
    )
    assert min(marks) > 8
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The verdict of every gate can be read without scrolling sideways.
    box = page.locator(".short td.bad, .short td.good").first.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


def test_tables_are_sorted_and_searched_and_flips_are_filtered(opened):
    page, _ = opened
    table = page.locator(".table.long table")
    head = table.locator("th", has_text="ms")
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    figures = [float(text) for text in table.locator("td:nth-child(2)").all_inner_texts()]
    assert figures == sorted(figures) and len(figures) == 40
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert float(table.locator("td:nth-child(2)").first.inner_text()) == max(figures)
    page.get_by_label("Search this table").fill("layer17")
    assert [row.inner_text() for row in table.locator("tbody tr:visible td:first-child").all()] == [
        f"layer17 {HOSTILE}"
    ]
    page.get_by_label("Search images and classes").fill("dog")
    assert page.locator(".flip:visible").count() == 3
    assert page.locator(".flip:visible img").first.evaluate("image => image.naturalWidth") == 1


def test_axe_finds_nothing_serious(opened):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-core checks the accessibility")
    page, _ = opened
    page.evaluate(importlib.resources.files(axe).joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [
        (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_policy_allows_no_eval_and_no_other_script(page_file):
    text = page_file.read_text(encoding="utf-8")
    policy = html.unescape(text.partition('"Content-Security-Policy" content="')[2].partition('"')[0])
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = policy.partition("script-src")[2].partition(";")[0]
    assert "unsafe" not in scripts and scripts.count("sha256-") == 2


def test_a_page_without_charts_does_not_carry_vega(tmp_path):
    table = table_of("t", (Column("a", lambda row: Cell(row)),), [["x"]])
    report = Report(
        "comparison", "t", "2026-01-02T03:04:05+00:00", "0.2", (), (Section("s", tables=(table,)),), ()
    )
    write_document(report, tmp_path / "r.html")
    assert (tmp_path / "r.html").stat().st_size < 40_000
