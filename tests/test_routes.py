"""Does the plan route answer with the engine's own plan, quickly, and refuse all else in words?"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pack import part
from questions import SHARED_SETTINGS, TEN_SETTINGS, USUAL, WAN_SETTINGS, fuzzed

routes, planning = part("nodes.bridge.routes"), part("nodes.bridge.planning")
running, host, core = part("nodes.bridge.running"), part("nodes.bridge.host"), part("vae_core")
pytestmark = pytest.mark.usefixtures("plenty_of_memory")


def ask(question: dict[str, Any] | bytes) -> tuple[int, dict[str, Any]]:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    return asyncio.run(routes.answer(body))


def settled(question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The answer, asked for until it is there."""
    while (found := ask(question))[0] == 202:
        time.sleep(0.02)
    return found


def own_plan(question: dict[str, Any]) -> Any:
    """What `vae_core` plans, clip at full length, with no help from the route."""
    vae = planning.engine(question["network"], planning.DTYPES[question["dtype"]], "cpu")
    settings = running.settings_of(question)
    if "ranks" in question:
        settings = replace(settings, parallel=question["ranks"])
    frames, height, width = (question[name] for name in ("frames", "height", "width"))
    if question["operation"] == "encode":
        return vae.plan_encode((1, 3, frames, height, width), settings)
    return vae.plan_decode((1, 16, (frames + 6) // 4, height // 8, width // 8), settings)


@pytest.mark.parametrize("change", [*TEN_SETTINGS, *WAN_SETTINGS, *SHARED_SETTINGS], ids=str)
def test_the_answer_is_the_engines_own_plan(change: dict[str, Any]):
    question = {**USUAL, **change}
    status, found = settled(question)
    plan = own_plan(question)
    assert (status, found["fits"]) == (200, True)
    expected = plan.as_dict()
    for name in ("peak_bytes", "store_bytes", "cache_bytes", "workspace_bytes", "far_bytes",
                 "moved_bytes", "placement", "worst_step", "operations"):  # fmt: skip
        assert found[name] == expected[name], name
    assert found["chunks"] == len(plan.chunks)
    assert found["crops"] == max(expected["blended_crops"], 1)
    assert found["tiles"] == plan.tile_count()


def test_exact_tiles_cost_no_arithmetic_and_blended_ones_do():
    assert settled(USUAL)[1]["arithmetic"] == 1.0
    blended = settled({**USUAL, "tiling": "blend"})[1]
    assert blended["arithmetic"] > 1.2
    assert blended["crops"] > 1


def test_devices_that_share_a_run_take_less_memory_each_and_no_more_arithmetic():
    usual = {**USUAL, "memory_budget": 0.0}
    alone, shared = (settled({**usual, "ranks": ranks})[1] for ranks in (1, 2))
    assert (alone["ranks"], shared["ranks"]) == (1, 2)
    assert shared["peak_bytes"] < 0.6 * alone["peak_bytes"]
    assert shared["operations"] < 0.6 * alone["operations"]
    assert shared["arithmetic"] == 1.0


def test_blended_tiles_are_shared_by_none_and_exact_ones_are_proposed():
    question = {**USUAL, "ranks": 2, "tiling": "blend"}
    found = settled(question)[1]
    assert not found["fits"]
    assert settled({**question, **found["fix"]["widgets"]})[1]["ranks"] == 2


def test_a_budget_that_is_too_small_comes_with_one_that_fits():
    question = {**USUAL, "memory_budget": 0.01}
    status, found = settled(question)
    assert (status, found["fits"]) == (200, False)
    assert "smallest budget that fits" in found["error"]
    assert settled({**question, **found["fix"]["widgets"]})[1]["fits"]
    budget = found["fix"]["widgets"]["memory_budget"]
    assert 0 <= budget * 2**30 - found["smallest"] < 0.25 * 2**30  # a step of the widget


@pytest.mark.parametrize(
    "change",
    [
        {"tiling": "off", "norm_scope": "clip", "memory_budget": 1.0, "width": 4096},
        {"operation": "encode", "frames": 50, "frame_policy": "error"},
        {"tiling": "blend", "tile_size": 20, "overlap": 16},
    ],
    ids=str,
)
def test_what_cannot_be_run_comes_with_a_change_that_can(change: dict[str, Any]):
    question = {**USUAL, **change}
    found = settled(question)[1]
    assert not found["fits"]
    assert settled({**question, **found["fix"]["widgets"]})[1]["fits"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"chunk_size": 6}, "multiple of 4"),
        ({"chunk_size": "8"}, "whole number"),
        ({"chunk_size": True}, "whole number"),
        ({"memory_budget": 1e9}, "memory_budget"),
        ({"width": 0}, "width"),
        ({"ranks": 65}, "ranks"),
        ({"frames": 10**30}, "frames"),
        ({"tiling": "../../etc"}, "one of exact"),
        ({"operation": None}, "operation"),
        ({"path": "x"}, "no widget"),
    ],
    ids=str,
)
def test_anything_else_is_refused_with_a_sentence(change: dict[str, Any], word: str):
    status, found = ask({**USUAL, **change})
    assert status == 400
    assert word in found["error"]
    assert len(found["error"]) < 300


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 4000, b'{"width": NaN}', b" " * 5000]
)
def test_what_is_no_question_is_refused(body: bytes):
    assert ask(body)[0] == 400


def test_five_hundred_fuzzed_requests_find_no_error_no_growth_and_a_free_server(
    monkeypatch: pytest.MonkeyPatch,
):
    settled(USUAL)
    planned, make = [], routes._answer

    def recorded(question: dict[str, Any]) -> dict[str, Any]:
        planned.append(threading.get_ident())
        return make(question)

    monkeypatch.setattr(routes, "_answer", recorded)
    rng = random.Random(7)
    statuses = {ask(fuzzed(rng))[0] for _ in range(500)}
    assert statuses <= {200, 202, 400}
    assert {200, 400} <= statuses
    # All planning is one other thread's, so that the server's own is free again at once.
    assert len(set(planned)) == 1
    assert threading.get_ident() not in planned
    assert len(routes._answers._kept) <= routes.KEPT_ANSWERS


def calls_of(work: Callable[[], object]) -> int:
    """How many functions a piece of work calls: the same on a busy machine."""
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_a_plan_takes_about_the_same_work_for_every_size():
    blended = {**USUAL, "tiling": "blend", "tile_size": 64, "overlap": 48}
    question = routes.checked(json.dumps(blended).encode())
    small = question | {"width": 512, "height": 512, "frames": 49}
    large = question | {"width": 8192, "height": 8192, "frames": 10_000}
    planning.answer_for(small)  # what is kept from one plan to the next is made here
    assert planning.answer_for(large)["crops"] > 100_000
    assert calls_of(lambda: planning.answer_for(large)) < 20 * calls_of(
        lambda: planning.answer_for(small)
    )


def test_without_a_host_nothing_is_registered():
    routes.register()
    assert not host.running()
