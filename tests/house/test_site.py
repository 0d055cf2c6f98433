"""The documentation site in a browser: it opens from disk, sends no request, and its search works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    return folder


@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_opens_from_disk_and_its_search_finds_a_page(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((site / "index.html").as_uri())
    if width < 1000:
        page.locator(".md-header__button[for=__search]").click()
    page.locator("input[name=query]").press_sequentially("letterbox")
    page.locator(".md-search-result__link", has_text="Your own network").click()
    page.wait_for_url("**/own-network.html*")
    assert [url for url in asked if not url.startswith("file:")] == []
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
