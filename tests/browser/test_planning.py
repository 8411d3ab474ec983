"""Does the panel show the engine's plan, at once and without getting in the way?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from browser.page import HEADLINES, Page
from browser.profile import recorded, share_of
from pack import part

pytestmark = pytest.mark.browser

USUAL = {
    "operation": "decode",
    "width": 720,
    "height": 480,
    "frames": 49,
    "memory_budget": 2.0,
    "chunk_size": 8,
    "tile_size": 0,
    "overlap": 64,
    "tiling": "exact",
    "norm_scope": "chunk",
}
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
LEAST_GAP_MS = 200  # between two requests, by the client's clock: five a second at most
MOST_SHARE = 0.5  # of the time in which the page is busy; the rest is the client's own
ASKED = """performance.getEntriesByType("resource")
  .filter(entry => entry.name.includes("exact_video_vae/plan")).map(entry => entry.startTime)"""
MIDDLE_OF = """name => {
  const node = app.graph.nodes[0];
  const widget = node.widgets.find(w => w.name === name);
  return [node.pos[0] + node.size[0] / 2, node.pos[1] + (widget.last_y ?? widget.y) + 10];
}"""


SHIPPED = "tiny_wan_vae (ships with this pack, for trying out)"


def own_plan(question: dict[str, Any], network: str = "full", ranks: int = 1) -> Any:
    """What `vae_core` plans."""
    planning, running = part("nodes.bridge.planning"), part("nodes.bridge.running")
    vae = planning.engine(network, planning.DTYPES["fp32"], "cpu")
    settings = replace(running.settings_of(question), parallel=ranks if ranks > 1 else None)
    frames, height, width = (question[name] for name in ("frames", "height", "width"))
    if question["operation"] == "encode":
        return vae.plan_encode((1, 3, frames, height, width), settings)
    return vae.plan_decode((1, 16, (frames + 6) // 4, height // 8, width // 8), settings)


@pytest.mark.parametrize("change", SETTINGS, ids=str)
def test_the_panels_peak_is_the_engines_plan(comfy: Page, change: dict[str, Any]):
    comfy.only("ExactVAEPlan")
    question = {**USUAL, **change}
    comfy.set("ExactVAEPlan", question)
    peak = own_plan(question).peak_bytes
    comfy.until(f"document.querySelector('.exact-plan').dataset.peak === '{peak}'")


def idle(name: str) -> str:
    """Whether a widget of the node that plans is greyed, as a script."""
    return (
        "app.graph.nodes.find(n => n.type === 'ExactVAEPlan')"
        f".widgets.find(w => w.name === '{name}').disabled"
    )


@pytest.mark.parametrize(
    ("name", "network", "scope_is_idle"),
    [
        (SHIPPED, "tiny_wan", True),
        ("tiny_vae (ships with this pack, for trying out)", "tiny", False),
    ],
)
def test_the_panel_follows_the_loaders_family(
    comfy: Page, name: str, network: str, scope_is_idle: bool
):
    comfy.only("ExactVAEPlan")
    comfy.add("ExactVAELoader", 100, 150)
    comfy.set("ExactVAELoader", {"vae_name": name, "dtype": "fp32"})
    comfy.set("ExactVAEPlan", {**USUAL, "chunk_size": 32})
    comfy.get("app.graph.nodes[1].connect(0, app.graph.nodes[0], 0)")
    peak = own_plan({**USUAL, "chunk_size": 32}, network).peak_bytes
    comfy.until(f"document.querySelector('.exact-plan').dataset.peak === '{peak}'")
    assert comfy.get(idle("norm_scope")) is scope_is_idle
    assert comfy.get(idle("overlap")) is True
    comfy.open_panels()
    comfy.shot(f"family_{network}")


def test_the_panel_plans_for_as_many_devices_as_apply_names(comfy: Page):
    comfy.only("ExactVAEPlan")
    comfy.add("ExactVAELoader", 100, 150)
    comfy.add("ExactVAEApply", 100, 450)
    comfy.set("ExactVAELoader", {"vae_name": SHIPPED, "dtype": "fp32"})
    comfy.set("ExactVAEApply", {"devices": "cuda:0, cuda:1"})
    comfy.set("ExactVAEPlan", USUAL)
    comfy.get("app.graph.nodes[1].connect(0, app.graph.nodes[2], 0)")
    comfy.get("app.graph.nodes[2].connect(0, app.graph.nodes[0], 0)")
    peak = own_plan(USUAL, "tiny_wan", ranks=2).peak_bytes
    assert peak != own_plan(USUAL, "tiny_wan").peak_bytes
    comfy.until(f"document.querySelector('.exact-plan').dataset.peak === '{peak}'")
    comfy.open_panels()
    comfy.until("document.querySelector('.exact-plan').textContent.includes('by 2 devices')")
    comfy.shot("shared")


def test_what_does_not_fit_is_made_to_fit_by_one_button(comfy: Page):
    comfy.only("ExactVAEPlan")
    comfy.set("ExactVAEPlan", {"memory_budget": 0.01})
    comfy.until(f"({HEADLINES})[0]?.includes('does not fit')")
    comfy.open_panels()
    comfy.shot("does_not_fit")
    comfy.page.get_by_test_id("exact-plan-fix").click()
    comfy.until(f"/fits · peak/.test(({HEADLINES})[0])")
    comfy.wait(0.5)
    comfy.shot("fits")


def test_dragging_a_widget_asks_five_times_a_second_and_never_blocks_the_canvas(
    comfy: Page, capsys: pytest.CaptureFixture[str]
):
    comfy.only("ExactVAEPlan")
    comfy.until("document.querySelector('.exact-plan')?.dataset.peak > 0")
    comfy.open_panels()
    comfy.wait(1.5)
    comfy.get("() => { performance.clearResourceTimings(); }")
    x, y = comfy.point(*comfy.get(MIDDLE_OF, "tile_size"))

    def drag() -> None:
        mouse = comfy.page.mouse
        mouse.move(x, y)
        mouse.down()
        for way in (1, -1, 1):
            for step in range(100):
                mouse.move(x + 7 * (step if way > 0 else 100 - step), y)
                comfy.wait(0.012)
        mouse.up()

    values = "app.graph.nodes[0].widgets.find(w => w.name === 'tile_size').value"
    before = comfy.get(values)
    profile, frames = recorded(comfy, drag)
    comfy.wait(1.5)
    assert comfy.get(values) > before
    asked = comfy.get(ASKED)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    share = share_of(profile, "exact-video-vae")
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{comfy.style}: {len(asked)} requests, least gap {min(gaps):.0f} ms; our code has"
            f" {share:.3f} of the busy time; {frames} frames drawn"
        )
    assert len(asked) >= 3
    assert min(gaps) >= LEAST_GAP_MS
    assert share <= MOST_SHARE
    assert frames >= len(asked)
