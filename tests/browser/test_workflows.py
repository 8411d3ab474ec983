"""Do the example workflows run in the client, and come back from a file as they were?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser.page import HEADLINES, WORKFLOWS, Page

pytestmark = pytest.mark.browser

MAKES_LATENTS, TAKES_LATENTS = "exact_vae_5_save_latents", "exact_vae_6_decode_saved_latents"

# Sees what passes too quickly to be waited for, at every frame of the screen.
WATCH = """() => {
  const seen = window.exactSeen = { percent: false, filled: 0, pictures: 0, use: false };
  const look = () => {
    for (const panel of document.querySelectorAll(".exact-plan")) {
      seen.pictures += panel.querySelectorAll("img.thumb, svg image").length;
      if (!/ %/.test(panel.querySelector(".line")?.innerText ?? "")) continue;
      seen.percent = true;
      seen.filled = Math.max(seen.filled, panel.querySelectorAll("rect.done").length);
      seen.use ||= /planned/.test(panel.innerText);
    }
    if (window.exactSeen === seen) requestAnimationFrame(look);
  };
  look();
}"""
RESULTS = """app.graph.nodes.filter(node => node.constructor.nodeData?.output_node).map(node => ({
  type: node.type,
  told: Object.keys(app.nodeOutputs[node.id] ?? {}).length,
  pictures: (node.imgs ?? []).filter(picture => picture.naturalWidth > 0).length,
  elements: (node.widgets ?? []).filter(w => w.element?.querySelector?.("img, video")).length,
}))"""
SHOWN = f"""({RESULTS}).every(({{ type, told, pictures, elements }}) =>
  ["ExactVAEDecodeVideo", "SaveAnimatedWEBP", "SaveImage"].includes(type)
    ? pictures + elements >= 1
    : told >= 1 || type === "SaveLatent")"""


def run(comfy: Page, seconds: float = 180) -> None:
    """Press Run and wait for the end."""
    comfy.get(
        "() => { window.exactEnd = null; for (const end of ['execution_success',"
        " 'execution_error']) app.api.addEventListener(end, () => { window.exactEnd = end; },"
        " { once: true }); }"
    )
    comfy.page.get_by_role("button", name="Run", exact=True).first.click()
    comfy.until("window.exactEnd", seconds)
    assert comfy.get("window.exactEnd") == "execution_success"


def make_latents(comfy: Page) -> None:
    """What the last example loads, where it is not there yet."""
    if not list((comfy.client.base / "output" / "latents").glob("exact_vae_*")):
        (maker,) = [path for path in WORKFLOWS if path.stem == MAKES_LATENTS]
        comfy.example(maker)
        run(comfy)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_runs_and_shows_its_result(comfy: Page, path: Path):
    if path.stem == TAKES_LATENTS:
        make_latents(comfy)
    comfy.example(path)
    comfy.until(f"({HEADLINES}).length && ({HEADLINES}).every(text => text.includes('peak'))")
    comfy.open_panels()
    comfy.get(WATCH)
    run(comfy)
    comfy.until(f"({HEADLINES}).some(text => /finished in .* peak .* \\/ /.test(text))")
    comfy.until(SHOWN)
    seen = comfy.get("window.exactSeen")
    assert seen["percent"]
    assert seen["use"]
    assert seen["filled"] >= 2, "no tile or chunk was seen to fill"
    assert seen["pictures"] >= 1, "no frame was seen"
    comfy.shot(f"{path.stem}_finished")


def saved(comfy: Page, name: str) -> dict[str, Any]:
    """What the client writes when a person saves the workflow under a name."""
    comfy.get("void app.extensionManager.command.execute('Comfy.SaveWorkflowAs')")
    field = comfy.page.locator("[role=dialog] input").first
    field.fill(name)
    field.press("Enter")
    path = comfy.client.base / "user" / "default" / "workflows" / f"{name}.json"
    for _ in range(100):
        comfy.wait(0.1)
        if path.is_file() and path.stat().st_size:
            break
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_is_the_same_after_saving_and_loading(comfy: Page, path: Path):
    example = comfy.example(path)
    comfy.wait(1.5)
    first = saved(comfy, f"{path.stem}_first")
    kept = {node["id"]: node.get("widgets_values") for node in first["nodes"]}
    for node in example["nodes"]:
        if node["type"].startswith("ExactVAE"):
            assert kept[node["id"]] == node.get("widgets_values"), node["type"]
    assert "exact_plan" not in json.dumps(first["nodes"])
    comfy.open()
    comfy.get(
        "text => app.handleFile(new File([text], 'saved.json', { type: 'application/json' }))",
        json.dumps(first),
    )
    comfy.wait(2)
    comfy.open_panels()
    comfy.open_panels()
    assert saved(comfy, f"{path.stem}_again") == first
