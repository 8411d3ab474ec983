"""What held the page's main thread while something was done in it, and for how long?

Chromium's own profiler, a sample each millisecond; and the gaps between frames of the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from browser.page import Page

SAMPLE_MICROSECONDS = 1000

WATCH_FRAMES = """() => {
  window.exactFrames = [];
  const tick = now => {
    if (!window.exactFrames) return;
    window.exactFrames.push(now);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}"""
SEEN_FRAMES = "() => { const seen = window.exactFrames; window.exactFrames = null; return seen; }"


def recorded(comfy: Page, act: Callable[[], None]) -> tuple[dict[str, Any], list[float]]:
    """The profile while `act` runs, and the milliseconds between frames."""
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
    return profile, [later - earlier for earlier, later in pairwise(frames)]


def longest_stretch(profile: dict[str, Any], part_of_url: str) -> float:
    """The longest time in milliseconds that some scripts, and what they called, ran at once."""
    ours = _within(profile["nodes"], part_of_url)
    longest = stretch = 0
    for node, passed in zip(profile["samples"], profile["timeDeltas"], strict=True):
        stretch = stretch + passed if node in ours else 0
        longest = max(longest, stretch)
    return longest / 1000


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
