"""Is the panel there in every theme and node style, before, during and after a run?"""

from __future__ import annotations

from itertools import count

import pytest
from browser.page import HEADLINES, WORKFLOWS, Page

pytestmark = pytest.mark.browser

FRESH = count(1)
CLIPPED = """[...document.querySelectorAll(".exact-plan")].filter(
  panel => panel.scrollHeight > panel.clientHeight + 2).length"""


@pytest.fixture(params=[False, True], ids=["classic", "vue"])
def node_style(request: pytest.FixtureRequest, comfy: Page):
    """The name of a style of nodes, which the client has for this test."""
    comfy.setting("Comfy.VueNodes.Enabled", request.param)
    yield "vue" if request.param else "classic"
    comfy.setting("Comfy.VueNodes.Enabled", False)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_panel_shows_in_every_theme_and_node_style(comfy: Page, node_style: str, theme: str):
    name = f"{theme}_{node_style}"
    comfy.setting("Comfy.ColorPalette", theme)
    comfy.example(WORKFLOWS[0])
    comfy.until(f"({HEADLINES}).some(text => text.includes('peak'))")
    comfy.shot(f"{name}_collapsed")
    comfy.open_panels()
    comfy.shot(f"{name}_open")
    assert comfy.get("document.querySelectorAll('.exact-plan svg rect').length") > 10
    assert comfy.get(CLIPPED) == 0
    # Other frames than before: the host does not run again what it has run.
    comfy.set("ExactVAEEncodeVideo", {"skip": next(FRESH)})
    comfy.get("app.queuePrompt(0, 1)")
    comfy.until(f"({HEADLINES}).some(text => text.includes(' %'))", 60)
    comfy.until("document.querySelectorAll('.exact-plan svg image').length === 2", 120)
    comfy.shot(f"{name}_running")
    comfy.until(f"({HEADLINES}).filter(text => text.includes('finished')).length >= 2", 120)
    comfy.wait(1)
    comfy.shot(f"{name}_finished")
    assert comfy.get(CLIPPED) == 0
