"""Steps that take turns: is every row made once, from rows that are there, and is the result the
same?
"""

from __future__ import annotations

import pytest
import torch
from card_apart import CARD, UNMADE, card_apart
from contract import assert_close
from networks import NARROW, random_latents
from test_mending import FullFrom
from test_places import job_of, measured, spread
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, from_module
from vae_core.geometry.region import Interval, Region
from vae_core.planning import between
from vae_core.planning.bands import Bands, heights_of, rolled, run_of, schedule
from vae_core.planning.memory import SLACK_BYTES
from vae_core.planning.plan import Job, chunk_extent
from vae_core.planning.planner import make_plan
from vae_core.running.execute import Execution

SHAPES = [("encode", (9, 96, 64)), ("decode", (3, 12, 8)), ("decode", (5, 7, 9))]
WITHOUT_STATISTICS = ["wan", "wan22"]


def turns_of(job: Job, rows: int):
    """For each kind of chunk: the chunk, its extents, the run's bands, and its turns."""
    run = run_of(job.program)
    assert run
    for chunk in make_plan(job, Settings(chunk_frames=4), CARD).chunks[:2]:
        extents, bands = job.program.extents(chunk_extent(job, chunk), chunk), Bands(*run, rows)
        yield chunk, extents, bands, schedule(job.program, bands, heights_of(extents))


def rows_read(step, chunk, extents, cells: Interval) -> dict[int, Interval]:
    """The rows of each store that a step's tile depends on."""
    whole = step.cell_extent(extents[step.src], chunk)
    region = Region(Interval(0, whole.t), cells, Interval(0, whole.w))
    found = {step.src: step.source_region(region, extents[step.src], chunk).h}
    if step.residual:
        found[step.residual.store] = step.core(region, extents[step.src], chunk).h
    return found


@pytest.mark.parametrize("rows", [1, 2, 5, 1000])
@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@pytest.mark.parametrize("family", WITHOUT_STATISTICS)
def test_every_row_is_made_once_from_rows_that_are_there(family, kind, shape, rows) -> None:
    job = job_of(family, kind, shape)
    for chunk, extents, bands, turns in turns_of(job, rows):
        steps, alone = job.program.steps, rolled(job.program, bands.start, bands.stop)
        made = dict.fromkeys(bands.steps, 0)
        version: dict[tuple[int, int], int] = {}  # which step a row of a store was last written by
        for turn in turns:
            for index, cells in zip(bands.steps, turn.cells, strict=True):
                if not cells:
                    continue
                step = steps[index]
                assert cells.start == made[index]
                made[index] = cells.stop
                for store, part in rows_read(step, chunk, extents, cells).items():
                    written = [i for i in bands.steps if i < index and steps[i].dst == store]
                    for row in range(part.start, part.stop):
                        if written:
                            assert version[store, row] == written[-1]
                        if store in alone:
                            assert turn.windows[store].start <= row < turn.windows[store].stop
                side = step.side_made
                for row in range(cells.start * side, cells.stop * side):
                    version[step.dst, row] = index
                    if step.dst in alone:
                        assert turn.windows[step.dst].start <= row < turn.windows[step.dst].stop
        for index in bands.steps:
            assert made[index] == steps[index].cell_extent(extents[steps[index].src], chunk).h


@pytest.fixture
def turning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever each store and cache has a place of its own, steps take turns."""
    every = between.Request.variants.func

    def some(request: between.Request) -> tuple[between.Variant, ...]:
        return tuple(variant for variant in every(request) if variant.there[0].turns)

    monkeypatch.setattr(between, "_BAND_PX", (32,))
    monkeypatch.setattr(between.Request, "variants", property(some))
    monkeypatch.setattr(between, "_request", between.Request)  # and none that is known


def in_turns(job: Job, count: int) -> list[Settings]:
    """Of so many budgets those within which steps take turns."""
    every = [Settings(budget_bytes=budget) for budget in spread(job, count)]
    found = [settings for settings in every if make_plan(job, settings, CARD).places.bands]
    assert found
    return found


TALL = [
    ("wan", "decode", (3, 32, 6)),
    ("wan", "encode", (9, 256, 48)),
    pytest.param("wan22", "decode", (3, 24, 4), marks=pytest.mark.slow),
    pytest.param("wan22", "encode", (9, 384, 64), marks=pytest.mark.slow),
]


@pytest.mark.usefixtures("turning")
@pytest.mark.parametrize(("family", "kind", "shape"), TALL)
def test_measured_is_at_most_projected_and_close_to_it_in_turns(family, kind, shape) -> None:
    with FakeTensorMode():
        vae = from_module(UNMADE[family](), device="meta")
        made = vae.plan_encode if kind == "encode" else vae.plan_decode
        job = made((1, 3 if kind == "encode" else vae.latent_channels, *shape), Settings()).job
        settings = in_turns(job, 12)[0]
        peak, moved, plan = measured(vae, kind, shape, settings)
    assert peak <= plan.peak_bytes <= 1.25 * peak + SLACK_BYTES
    assert plan.moved_bytes == pytest.approx(moved, rel=0.1)


def test_steps_with_statistics_take_no_turns() -> None:
    assert run_of(job_of("cogvideox", "decode", (3, 6, 8)).program) is None


@pytest.mark.usefixtures("turning")
@pytest.mark.parametrize("family", ["wan", pytest.param("wan22", marks=pytest.mark.slow)])
def test_turns_make_the_same_picture(family, monkeypatch) -> None:
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(3, 24, 6, torch.float64, channels=vae.latent_channels)
    expected, taken, run = vae.decode(latents), [], Execution._run_turns

    def noted(self, bands, *rest) -> None:
        taken.append(bands.rows)
        run(self, bands, *rest)

    monkeypatch.setattr(Execution, "_run_turns", noted)
    with card_apart():
        job = vae.plan_decode(latents.shape, Settings()).job
        for settings in in_turns(job, 8)[:2]:
            assert_close(vae.decode(latents, settings), expected)
            assert taken
            taken.clear()


@pytest.mark.usefixtures("turning")
@pytest.mark.parametrize("family", ["wan", pytest.param("wan22", marks=pytest.mark.slow)])
def test_memory_that_runs_out_in_a_turn_changes_nothing(family, monkeypatch) -> None:
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(3, 24, 6, torch.float64, channels=vae.latent_channels)
    expected = vae.decode(latents)
    with card_apart():
        job = vae.plan_decode(latents.shape, Settings()).job
        plan = make_plan(job, in_turns(job, 8)[0], CARD)
        assert plan.places.bands
        for index in list(plan.places.bands.steps)[::11]:
            path = job.program.steps[index].path
            with monkeypatch.context() as patch, FullFrom(path, patch) as mode:
                found = vae.decode(latents, plan.settings)
            assert_close(found, expected)
            assert mode.failures
