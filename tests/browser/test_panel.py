"""Does the panel do what it promises in the real web client of a real ComfyUI?

Chromium is the system's (CHROMIUM names another); Playwright drives it. Screenshots go to
out/screenshots. COMFYUI_PATH and COMFYUI_PYTHON name the host.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host import server
from pack import part

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "out" / "screenshots"
WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
READY = "window.app && window.app.extensionManager && window.app.graph"
HEADLINES = "[...document.querySelectorAll('.exact-plan .line')].map(e => e.innerText)"

SETTINGS = [
    {},
    {"chunk_size": 16},
    {"tile_size": 256},
    {"tile_size": 128, "width": 1360, "height": 768},
    {"tiling": "blend"},
    {"tiling": "blend", "tile_size": 240, "overlap": 32},
    {"tiling": "off", "width": 320, "height": 192, "memory_budget": 8.0},
    {"operation": "encode"},
    {"operation": "encode", "frames": 201, "chunk_size": 12},
    {"norm_scope": "clip", "frames": 81},
]

SET = """changes => {
  const node = app.graph.nodes.find(n => n.type === 'ExactVAEPlan');
  for (const [name, value] of Object.entries(changes)) {
    const widget = node.widgets.find(w => w.name === name);
    widget.value = value; widget.callback?.(value); widget.value = value;
  }
}"""

DRAG = """async () => {
  const node = app.graph.nodes.find(n => n.type === 'ExactVAEPlan');
  const widget = node.widgets.find(w => w.name === 'tile_size');
  for (let value = 64; value < 64 + 16 * 150; value += 16) {
    widget.value = value; widget.callback(value);
    await new Promise(done => setTimeout(done, 20));
  }
}"""


class Page:
    """A page of the client, what it complained of and what it asked."""

    def __init__(self, page: Any, port: int) -> None:
        self.page, self.errors, self.asked = page, [], []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._request)
        page.goto(f"http://127.0.0.1:{port}/", timeout=120_000)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(3000)

    def _console(self, message: Any) -> None:
        ours = "exact" in f"{message.text} {message.location}"
        if message.type == "error" and ours:
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        if "exact_video_vae/plan" in request.url:
            self.asked.append(time.monotonic())

    def only(self, kind: str) -> None:
        """A graph with one node."""
        self.page.evaluate(
            "kind => { app.graph.clear(); app.graph.add(LiteGraph.createNode(kind)); }", kind
        )
        self.page.wait_for_timeout(500)

    def load(self, workflow: dict[str, Any]) -> None:
        self.page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)
        self.page.wait_for_timeout(1500)

    def until(self, condition: str, seconds: float = 15) -> None:
        self.page.wait_for_function(condition, timeout=seconds * 1000)

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")


@pytest.fixture(scope="module")
def comfy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One page of one server."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("needs Debian's chromium, or CHROMIUM")
    try:
        host = server.checkout()
    except server.HostMissing as reason:
        pytest.skip(str(reason))
    base = tmp_path_factory.mktemp("base")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with server.running(host, base) as client, sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        yield Page(page, client.port)
        browser.close()


@pytest.mark.parametrize("change", SETTINGS, ids=str)
def test_the_panels_peak_is_the_engines_plan(comfy: Page, change: dict[str, Any]):
    comfy.only("ExactVAEPlan")
    usual = {"operation": "decode", "width": 720, "height": 480, "frames": 49, "memory_budget": 2.0}
    question = {**usual, "chunk_size": 8, "tile_size": 0, "overlap": 64, "tiling": "exact"}
    question = {**question, "norm_scope": "chunk", **change}
    planning, running = part("nodes.planning"), part("nodes.running")
    vae = planning.engine("full", planning.DTYPES["fp32"], "cpu")
    settings = running.settings_of(question)
    frames, height, width = (question[name] for name in ("frames", "height", "width"))
    if question["operation"] == "encode":
        plan = vae.plan_encode((1, 3, frames, height, width), settings)
    else:
        plan = vae.plan_decode((1, 16, (frames + 6) // 4, height // 8, width // 8), settings)
    comfy.page.evaluate(SET, question)
    comfy.until(f"document.querySelector('.exact-plan').dataset.peak === '{plan.peak_bytes}'")


def test_dragging_a_widget_asks_five_times_a_second_at_most(comfy: Page):
    comfy.only("ExactVAEPlan")
    comfy.page.wait_for_timeout(1500)
    comfy.asked.clear()
    comfy.page.evaluate(DRAG)
    comfy.page.wait_for_timeout(1500)
    worst = max(sum(start <= at < start + 1 for at in comfy.asked) for start in comfy.asked)
    assert 2 <= worst <= 5


def test_what_does_not_fit_is_made_to_fit_by_one_button(comfy: Page):
    comfy.only("ExactVAEPlan")
    comfy.page.evaluate(SET, {"memory_budget": 0.01})
    comfy.until(f"({HEADLINES})[0]?.includes('does not fit')")
    comfy.page.evaluate("document.querySelector('.exact-plan .line').click()")
    comfy.shot("does_not_fit")
    comfy.page.evaluate("document.querySelector('[data-testid=exact-plan-fix]').click()")
    comfy.until(f"/fits · peak/.test(({HEADLINES})[0])")
    comfy.shot("fits")


def test_a_bad_chunk_size_is_snapped_and_marked(comfy: Page):
    comfy.only("ExactVAEDecodeFramewise")
    find = "app.graph.nodes[0].widgets.find(w => w.name === 'chunk_size')"
    comfy.page.evaluate(f"{find}.callback(6)")
    assert comfy.page.evaluate(f"{find}.value % 4") == 0
    comfy.page.evaluate(f"{find}.value = 6")
    comfy.until(f"({HEADLINES})[0].includes('multiple of 4')")


def test_overlap_is_greyed_out_unless_tiles_are_blended(comfy: Page):
    comfy.only("ExactVAEPlan")
    grey = "app.graph.nodes[0].widgets.find(w => w.name === 'overlap').disabled"
    assert comfy.page.evaluate(grey)
    comfy.page.evaluate(SET, {"tiling": "blend"})
    assert not comfy.page.evaluate(grey)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_is_the_same_after_loading_and_saving(comfy: Page, path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    comfy.load(workflow)
    comfy.page.wait_for_timeout(1500)
    saved = comfy.page.evaluate("app.graph.serialize()")
    again = {node["id"]: node.get("widgets_values") for node in saved["nodes"]}
    for node in workflow["nodes"]:
        if node["type"].startswith("ExactVAE"):
            assert again[node["id"]] == node.get("widgets_values"), node["type"]
    assert "exact_plan" not in json.dumps(saved["nodes"])


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_panel_shows_in_every_theme_and_node_style(comfy: Page, vue: bool, theme: str):
    set_to = "([name, value]) => app.extensionManager.setting.set(name, value)"
    comfy.page.evaluate(set_to, ["Comfy.VueNodes.Enabled", vue])
    comfy.page.evaluate(set_to, ["Comfy.ColorPalette", theme])
    comfy.load(json.loads(WORKFLOWS[0].read_text(encoding="utf-8")))
    comfy.until(f"({HEADLINES}).some(text => text.includes('peak'))")
    comfy.shot(f"{theme}_{'vue' if vue else 'classic'}_collapsed")
    comfy.page.evaluate("document.querySelectorAll('.exact-plan .line').forEach(e => e.click())")
    comfy.page.wait_for_timeout(1000)
    comfy.shot(f"{theme}_{'vue' if vue else 'classic'}_open")
    assert comfy.page.evaluate("document.querySelectorAll('.exact-plan svg rect').length") > 10
    comfy.page.evaluate(set_to, ["Comfy.VueNodes.Enabled", False])


def test_a_run_fills_the_panel_and_leaves_a_summary(comfy: Page):
    comfy.load(json.loads(WORKFLOWS[0].read_text(encoding="utf-8")))
    comfy.page.evaluate("app.queuePrompt(0, 1)")
    comfy.until(f"({HEADLINES}).some(text => text.includes(' %'))", 60)
    comfy.shot("running")
    comfy.until(f"({HEADLINES}).filter(text => text.includes('finished')).length >= 2", 120)
    comfy.shot("finished")


def test_no_error_came_from_our_files(comfy: Page):
    assert comfy.errors == []
