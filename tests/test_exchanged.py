"""What do four ranks hand each other of a clip of 49x480x720? The figures of docs/parallel.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from networks import full_size_module

from vae_core import Settings, VideoVAE, from_module
from vae_core.planning.exchanged import exchanged
from vae_core.planning.plan import Plan
from vae_core.program.shares import shares_of

PAGE = Path(__file__).parents[1] / "docs" / "parallel.md"
MIB = 2**20

DECODE = {480: {52: 8, 103: 1}, 240: {52: 8, 26: 1}, 120: {13: 8, 14: 1}, 60: {7: 13}}
ENCODE = {480: {52: 6, 26: 1}, 240: {26: 5, 13: 2}, 120: {7: 6, 3: 1}, 60: {7: 10, 3: 1}}
"""MiB of rows that a step's result takes, and of how many steps; by the rows of the picture."""


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return from_module(full_size_module())


def planned(vae: VideoVAE, way: str) -> Plan:
    settings = Settings(parallel=4)
    if way == "encode":
        return vae.plan_encode((1, 3, 49, 480, 720), settings)
    return vae.plan_decode((1, 16, 13, 60, 90), settings)


@pytest.mark.parametrize(("way", "table"), [("decode", DECODE), ("encode", ENCODE)])
def test_rows_of_every_level_are_those_of_the_table(vae, way, table) -> None:
    plan = planned(vae, way)
    program, found = plan.job.program, {height: Counter() for height in table}
    for step, one in zip(program.steps, exchanged(plan), strict=True):
        if one.rows_bytes:
            found[480 // program.stores[step.dst].px][round(one.rows_bytes / MIB)] += 1
    assert {height: dict(counts) for height, counts in found.items()} == table


def test_the_page_has_the_sums(vae) -> None:
    rows, steps, told = {}, {}, {}
    for way in ("decode", "encode"):
        every = exchanged(planned(vae, way))
        rows[way] = round(sum(one.rows_bytes for one in every) / MIB)
        steps[way] = sum(one.rows_bytes > 0 for one in every)
        told[way] = sum(one.statistics_bytes for one in every) / MIB
        assert {one.statistics_bytes for one in every} == {0, 18 * 1024}
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    sums = f"{rows['decode']} MiB | {steps['decode']} | {rows['encode']} MiB | {steps['encode']}"
    assert f"| all | {sums} |" in page
    assert f"{told['decode']:.1f} MiB in all of decode and {told['encode']:.1f} MiB" in page


@pytest.mark.parametrize("way", ["decode", "encode"])
def test_no_more_than_two_rows_go_to_a_neighbour_and_none_further(vae, way) -> None:
    plan = planned(vae, way)
    for moves in shares_of(plan.job.program, plan.job.source.h, 4).moves:
        for move in moves:
            assert abs(move.of - move.to) == 1
            assert move.rows.size <= 2
