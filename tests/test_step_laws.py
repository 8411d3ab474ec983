"""The laws, put to every step of both programs by itself."""

from __future__ import annotations

import pytest
import torch
from contract import StepBench, assert_close, chunk_and_source
from networks import random_module

from vae_core.families.cogvideox import lower_decoder, lower_encoder
from vae_core.geometry.region import Extent, Interval, Region
from vae_core.program.rewrites import unique_frames

MODULE = random_module(torch.float64)
PROGRAMS = {
    "encoder": lower_encoder(MODULE),
    "decoder": lower_decoder(MODULE),
    "decoder of unique frames": unique_frames(lower_decoder(MODULE)),
}
STEPS = [(name, i) for name, program in PROGRAMS.items() for i in range(len(program.steps))]
LARGEST = [Extent(2, 3, 5), Extent(99, 2, 99), Extent(3, 99, 4)]


def bench(name: str, index: int, first: bool) -> StepBench:
    program = PROGRAMS[name]
    chunk, source = chunk_and_source(program, first)
    return StepBench(program, MODULE, index, chunk, source)


@pytest.fixture(params=[True, False], ids=["first chunk", "later chunk"])
def first(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_tiles_of_a_step_make_up_its_whole(name: str, index: int, first: bool) -> None:
    step = bench(name, index, first)
    (whole,) = step.cells(Extent(999, 999, 999))
    expected = step.run(whole, step.stores, step.cache)
    for largest in LARGEST:
        for cells in step.cells(largest):
            found = step.run(cells, step.stores, step.cache)
            assert_close(found, expected[(..., *step.core(cells).slices)], 1e-12)


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_nan_outside_the_declared_region_changes_nothing(
    name: str, index: int, first: bool
) -> None:
    step = bench(name, index, first)
    for cells in step.cells(Extent(2, 3, 5)):
        clean = step.run(cells, step.stores, step.cache)
        stores, cache = step.poisoned(cells)
        assert torch.equal(step.run(cells, stores, cache), clean)


def faces(region: Region) -> list[Region]:
    """The six outermost slices of a box."""
    found = []
    for name in ("t", "h", "w"):
        side = getattr(region, name)
        for thin in (Interval(side.start, side.start + 1), Interval(side.stop - 1, side.stop)):
            found.append(Region(**{"t": region.t, "h": region.h, "w": region.w, name: thin}))
    return found


@pytest.mark.parametrize(("name", "index"), STEPS)
def test_the_declared_region_is_no_larger_than_the_measured_one(
    name: str, index: int, first: bool
) -> None:
    step = bench(name, index, first)
    for cells in step.cells(Extent(2, 3, 5)):
        region = step.step.source_region(cells, step.extents[step.step.src], step.chunk)
        for face in faces(region):
            stores = {k: v.clone() for k, v in step.stores.items()}
            stores[step.step.src][(..., *face.slices)] = float("nan")
            assert step.run(cells, stores, step.cache).isnan().any(), (
                f"{face} is declared but unused"
            )
