"""Does a plan for the panel stay cheap? Counted in calls: the same on a busy machine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from benchmarks.planning import played_card, questions
from pack import part
from questions import USUAL
from test_routes import calls_of

routes, planning = part("nodes.bridge.routes"), part("nodes.bridge.planning")
between, ladders = part("vae_core.planning.between"), part("vae_core.planning.ladders")
kinds = part("vae_core.planning.kinds")

SLOWEST = {"network": "wan22", "frames": 121, "width": 1360, "height": 768, "chunk_size": 32}
"""Four lengths of chunks, each of which may be the best within a small budget."""


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to what the panel asks, on a card of 24 GiB that is played."""
    with played_card():
        return planning.answer_for(routes.checked(json.dumps({**USUAL, **question}).encode()))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One for each time that the panel asks the planner."""
    found, plan = list[object](), planning._planned
    monkeypatch.setattr(planning, "_planned", lambda *of: found.append(of) or plan(*of))
    return found


def test_the_planner_is_asked_once_for_an_answer(asked):
    count = 40
    for question in questions(count):
        assert answer(question)["fits"]
    assert len(asked) == count


def test_it_is_asked_again_where_what_was_left_out_is_no_whole_number_of_chunks(asked):
    question = {"network": "wan", "frames": 1001, "chunk_size": 20, "memory_budget": 1.0}
    assert answer(question)["chunks"] == (1001 - 1) // 8
    assert len(asked) == 2


def test_chunks_shorter_than_a_latent_frame_are_taken_for_the_shortest():
    assert answer({"network": "mochi", "chunk_size": 4})["chunk_frames"] == [3, 2]


def test_each_length_of_chunks_is_walked_through_once(monkeypatch):
    walked, choose = [], between.choose
    monkeypatch.setattr(between, "choose", lambda *of: walked.append(of) or choose(*of))
    between._request.cache_clear()
    answer({**SLOWEST, "memory_budget": 0.25})
    assert len(walked) <= 4


def test_a_first_plan_and_those_for_other_budgets_take_so_many_calls():
    answer({**SLOWEST, "width": 64, "height": 64})  # makes the network
    for kept in (between._request, ladders.ladder_of, kinds._geometry):
        kept.cache_clear()
    assert calls_of(lambda: answer({**SLOWEST, "memory_budget": 0.25})) < 1_400_000
    for budget in (0.25, 0.5, 0.75, 1.0):
        again = {**SLOWEST, "memory_budget": budget}
        assert calls_of(lambda again=again: answer(again)) < 250_000
