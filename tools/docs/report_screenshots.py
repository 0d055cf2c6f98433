"""Draw docs/assets/report-*.webp: the top of an HTML report, on a wide and on a narrow screen.

python -m tools.docs.report_screenshots

Needs the extras [export], [cpu] and [report], Playwright and Debian's chromium. Takes a minute.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

import cnnx
from tools import ROOT

FOLDER = ROOT / "docs" / "assets"
_SHOTS: tuple[tuple[str, int, int, Literal["light", "dark"]], ...] = (
    ("report-wide", 1200, 1350, "light"),
    ("report-narrow", 390, 1350, "dark"),
)


def main() -> None:
    """Export, measure and diagnose a small network, and photograph its report."""
    with tempfile.TemporaryDirectory() as folder:
        bundles = [Path(folder) / precision for precision in ("int8", "fp16")]
        for bundle in bundles:
            cnnx.export("small-mobilenet", precision=bundle.name, out=bundle)
        cnnx.bench(bundles, layers=True)
        cnnx.diagnose(bundles[0])
        page = Path(folder) / "report.html"
        cnnx.write_report(bundles, page)
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for name, width, height, scheme in _SHOTS:
                opened = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                opened.goto(page.as_uri())
                opened.wait_for_function("!document.querySelector('.chart:not(.drawn)')")
                shot = Image.open(io.BytesIO(opened.screenshot()))
                shot.save(FOLDER / f"{name}.webp", quality=70, method=6)
            browser.close()


if __name__ == "__main__":
    main()
