"""The laws, put to every step of every family's programs by itself."""

from __future__ import annotations

import pytest
import torch
from contract import ALL, StepBench, assert_close, chunk_and_source
from networks import NARROW

from vae_core.families.family import family_of
from vae_core.geometry.region import Extent, Interval, Region
from vae_core.program.rewrites import still_frame, unique_frames
from vae_core.program.scopes import needs_clip
from vae_core.program.steps import Program

MODULES = {name: make(torch.float64) for name, make in NARROW.items()}


def programs(module: torch.nn.Module) -> dict[str, Program]:
    """All that a network is lowered and rewritten to, by name."""
    family = family_of(module)
    encoder, decoder = family.lower_encoder(module), family.lower_decoder(module)
    found = {"encoder": encoder, "decoder": decoder}
    if unique_frames(decoder) != decoder:
        found["decoder of unique frames"] = unique_frames(decoder)
    alone = [(name, p) for name, p in list(found.items())[:2] if not p.leads]
    stills = {f"{name} of a lone frame": still_frame(p) for name, p in alone}
    return found | stills


PROGRAMS = {name: programs(module) for name, module in MODULES.items()}


def _where(name: str, program: Program) -> tuple[str, ...]:
    """In which chunks of a clip the laws are put to a program's steps."""
    if "lone" in name:
        return ("still",)
    return ("first",) if needs_clip(program) else ("first", "later")


STEPS = [
    (family, name, which, index)
    for family, found in PROGRAMS.items()
    for name, program in found.items()
    for which in _where(name, program)
    for index in range(len(program.steps))
]
SIZES = {  # elsewhere smaller: the steps are many
    "cogvideox": (24, 32),
    "wan22": (32, 48),
    "hunyuan15": (32, 48),
    "ltx": (64, 96),
}
LARGEST = [Extent(2, 3, 5), Extent(99, 2, 99), Extent(3, 99, 4)]


@pytest.fixture(params=STEPS, ids=lambda case: "-".join(map(str, case)))
def step(request: pytest.FixtureRequest) -> StepBench:
    family, name, which, index = request.param
    program = PROGRAMS[family][name]
    sides = SIZES.get(family, (16, 24))
    chunk, source = chunk_and_source(program, which, *sides, index=index)
    return StepBench(program, MODULES[family], index, chunk, source)


def test_tiles_of_a_step_make_up_its_whole(step: StepBench) -> None:
    wholes = {
        step.core(cells): step.run(cells, step.stores, step.cache)
        for cells in step.cells(Extent(999, 999, 999))
    }
    for largest in LARGEST:
        for cells in step.cells(largest):
            found, core = step.run(cells, step.stores, step.cache), step.core(cells)
            (whole,) = [whole for whole in wholes if whole.t.contains(core.t)]
            assert_close(found, wholes[whole][(..., *core.within(whole))], 1e-12)


def test_nan_outside_the_declared_region_changes_nothing(step: StepBench) -> None:
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


def test_the_declared_region_is_no_larger_than_the_measured_one(step: StepBench) -> None:
    src = step.step.src
    for cells in step.cells(Extent(2, 3, 5)):
        for channels, region in step.read(cells):
            for face in faces(region):
                stores = {k: v.clone() for k, v in step.stores.items()}
                stores[src][(ALL, channels, *face.slices)] = float("nan")
                assert step.run(cells, stores, step.cache).isnan().any(), (
                    f"{face} is declared but unused"
                )
