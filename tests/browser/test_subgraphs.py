"""Do panels follow their nodes into subgraphs and tabs, and show no run but their own?"""

from __future__ import annotations

import json
import time
from itertools import count
from typing import Any

import pytest
from browser.page import HEADLINES, WORKFLOWS, Page

pytestmark = pytest.mark.browser

LOOKS_SECONDS = 3.5  # a panel looks once a second
RUN_SECONDS = 400  # on a machine that does much else
FRESH = count(1)
OTHER_ID = "5f0c1f0e-7d5c-4f2e-9a3a-2f9d4c1b8e77"
FIRST = """() => {
  const taken = app.graph.nodes.filter(node => /ExactVAE(Encode|Decode)/.test(node.type));
  window.exactSub = app.graph.convertToSubgraph(new Set(taken));
}"""
INSIDE = "app.canvas.openSubgraph(window.exactSub.subgraph, window.exactSub.node)"
OUTSIDE = "app.canvas.setGraph(app.canvas.graph.rootGraph)"
UNPACK = "app.canvas.graph.rootGraph.unpackSubgraph(window.exactSub.node)"
AGAIN = """() => {
  const root = app.canvas.graph.rootGraph;
  window.exactTwin = window.exactSub.node.clone();
  window.exactTwin.id = -1; // a new one is given
  root.add(window.exactTwin);
  const loader = root.nodes.find(node => node.type === "ExactVAELoader");
  loader.connect(0, window.exactTwin, 0);
}"""
PEAKS = "[...document.querySelectorAll('.exact-plan')].map(e => Number(e.dataset.peak))"
SEND = "([type, detail]) => void app.api.dispatchCustomEvent(type, detail)"
RUN = {"job": "decode", "seconds": 1, "peak_bytes": 2**20, "memory": ""}


@pytest.fixture(params=[False, True], ids=["classic", "vue"], autouse=True)
def node_style(request: pytest.FixtureRequest, comfy: Page):
    """Every test in both styles of nodes."""
    comfy.setting("Comfy.VueNodes.Enabled", request.param)
    yield "vue" if request.param else "classic"
    comfy.setting("Comfy.VueNodes.Enabled", False)


def short() -> dict[str, int]:
    """Widgets for a quick run, of other frames than before: what was run is not run again."""
    return {"count": 5, "skip": next(FRESH)}


def planned(comfy: Page) -> list[int]:
    """The peaks of the two panels in sight, once they are there."""
    comfy.until(f"({PEAKS}).length === 2 && ({PEAKS}).every(peak => peak > 0)")
    comfy.wait(1.5)
    return sorted(comfy.get(PEAKS))


def tell(comfy: Page, node: str, **event: Any) -> None:
    """What the server sends of a run."""
    comfy.get(SEND, ["exact_video_vae.progress", {**RUN, "node": node, **event}])
    comfy.wait(0.3)


def test_a_plan_is_the_same_inside_a_subgraph_and_after_it_is_unpacked(
    comfy: Page, node_style: str
):
    comfy.example(WORKFLOWS[0])
    before = planned(comfy)
    comfy.get(FIRST)
    comfy.wait(LOOKS_SECONDS)
    assert comfy.errors == []
    comfy.get(INSIDE)
    assert planned(comfy) == before
    comfy.shot(f"subgraph_{node_style}")
    comfy.get(OUTSIDE)
    comfy.wait(0.5)
    comfy.get(UNPACK)
    assert planned(comfy) == before
    comfy.wait(LOOKS_SECONDS)


def test_a_run_is_seen_inside_the_subgraph(comfy: Page, node_style: str):
    comfy.example(WORKFLOWS[0])
    comfy.set("ExactVAEEncodeVideo", short())
    comfy.get(FIRST)
    comfy.get(INSIDE)
    planned(comfy)
    comfy.get("app.queuePrompt(0, 1)")
    comfy.until(
        f"({HEADLINES}).filter(text => text.includes('finished')).length === 2", RUN_SECONDS
    )
    comfy.shot(f"subgraph_finished_{node_style}")
    comfy.get(OUTSIDE)


def test_a_node_in_two_instances_shows_the_one_that_runs(comfy: Page):
    comfy.example(WORKFLOWS[0])
    comfy.get(FIRST)
    comfy.get(AGAIN)
    comfy.get(INSIDE)
    planned(comfy)
    inner = "window.exactSub.subgraph.nodes.find(n => n.type === 'ExactVAEDecodeFramewise').id"
    one, two = (
        f"{comfy.get(f'String(window.{which}.id)')}:{comfy.get(f'String({inner})')}"
        for which in ("exactSub.node", "exactTwin")
    )
    tell(comfy, one, state="begin")
    tell(comfy, one, state="run", share=0.75)
    comfy.until(f"({HEADLINES}).some(text => text.includes('decode: 75 %'))")
    tell(comfy, two, state="run", seconds=2)
    comfy.until(f"({HEADLINES}).some(text => text.includes('decode: 0 %'))")
    comfy.get(OUTSIDE)


def test_a_run_of_another_tab_is_shown_in_none_but_its_own(comfy: Page):
    example = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    comfy.load(example)
    planned(comfy)
    comfy.get(
        "() => { window.exactSeen = []; app.api.addEventListener('exact_video_vae.progress',"
        " event => window.exactSeen.push(event.detail.workflow)); }"
    )
    comfy.set("ExactVAEEncodeVideo", short())
    comfy.get("app.queuePrompt(0, 1)")
    comfy.load({**example, "id": OTHER_ID})
    comfy.until("window.exactSeen.length > 2", RUN_SECONDS)
    assert set(comfy.get("window.exactSeen")) == {example["id"]}
    assert comfy.get("app.graph.id") == OTHER_ID
    comfy.wait(3)
    assert not [text for text in comfy.get(HEADLINES) if "%" in text or "finished" in text]


def test_a_run_that_a_script_started_is_shown_nowhere(comfy: Page):
    comfy.example(WORKFLOWS[0])
    planned(comfy)
    comfy.set("ExactVAEEncodeVideo", short())
    prompt = comfy.get("async () => (await app.graphToPrompt()).output")
    status, answer = comfy.client.ask("/prompt", {"prompt": prompt})
    assert status == 200
    until = time.monotonic() + RUN_SECONDS
    while not comfy.client.ask(f"/history/{answer['prompt_id']}")[1]:
        assert time.monotonic() < until
        comfy.wait(0.5)
    comfy.wait(1)
    assert not [text for text in comfy.get(HEADLINES) if "%" in text or "finished" in text]
