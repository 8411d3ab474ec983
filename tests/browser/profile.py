"""What held the page's main thread while something was done in it?

Chromium's own profiler, a sample each millisecond; and how often the screen was drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from browser.page import Page

SAMPLE_MICROSECONDS = 1000
REST = {"(idle)", "(root)", "(program)"}
"""What the profiler calls the time in which no script runs."""

WATCH_FRAMES = """() => {
  window.exactFrames = 0;
  const tick = () => {
    if (window.exactFrames === null) return;
    window.exactFrames += 1;
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""
SEEN_FRAMES = "() => { const seen = window.exactFrames; window.exactFrames = null; return seen; }"


def recorded(comfy: Page, act: Callable[[], None]) -> tuple[dict[str, Any], int]:
    """The profile while `act` runs, and how many frames of the screen were drawn meanwhile."""
    session = comfy.page.context.new_cdp_session(comfy.page)
    session.send("Profiler.enable")
    session.send("Profiler.setSamplingInterval", {"interval": SAMPLE_MICROSECONDS})
    session.send("Profiler.start")
    comfy.wait(1)  # the profiler's own start is no gap of ours
    comfy.get(WATCH_FRAMES)
    act()
    profile = session.send("Profiler.stop")["profile"]
    frames = comfy.get(SEEN_FRAMES)
    session.detach()
    return profile, frames


def share_of(profile: dict[str, Any], part_of_url: str) -> float:
    """What part of the time in which the page was busy some scripts, and what they called, ran."""
    ours = _within(profile["nodes"], part_of_url)
    resting = {node["id"] for node in profile["nodes"] if node["callFrame"]["functionName"] in REST}
    passed = list(zip(profile["samples"], profile["timeDeltas"], strict=True))
    busy = sum(time for node, time in passed if node not in resting)
    return sum(time for node, time in passed if node in ours) / busy


def _within(nodes: list[dict[str, Any]], part_of_url: str) -> set[int]:
    """The nodes of a call tree that are of such a script, or below one."""
    found = {node["id"] for node in nodes if part_of_url in node["callFrame"]["url"]}
    children = {node["id"]: node.get("children", []) for node in nodes}
    waiting = list(found)
    while waiting:
        for child in children[waiting.pop()]:
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found
