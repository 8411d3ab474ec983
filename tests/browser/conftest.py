"""One page of one server for each web client.

Chromium is the system's (CHROMIUM names another); Playwright drives it. COMFYUI_PATH and
COMFYUI_PYTHON name the host.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from browser import clients
from browser.page import Page
from host import server

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TUTORIAL_OVER = '{"Comfy.TutorialCompleted": true}'


@pytest.fixture(scope="session", params=["own", "newest"])
def comfy(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Page]:
    """A page of the host's own client, then of the newest."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Debian's chromium, or CHROMIUM")
    try:
        host = server.checkout()
        web_client = clients.newest() if request.param == "newest" else None
    except server.HostMissing as reason:
        pytest.skip(str(reason))
    base = tmp_path_factory.mktemp(request.param)
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(TUTORIAL_OVER, encoding="utf-8")
    with server.running(host, base, web_client) as client, sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1500, "height": 950})
            yield Page(page, client, request.param)
        finally:
            browser.close()


@pytest.fixture(autouse=True)
def no_error_of_ours(comfy: Page) -> Iterator[None]:
    """After every test: the page has complained of nothing that is ours."""
    yield
    found, comfy.errors = comfy.errors, []
    assert found == []
