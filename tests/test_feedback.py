"""What a run shows of its device is learnt: is an allowance that was too small raised, there and
then and for later, and does nothing else change?
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import NARROW, random_latents, random_module
from played_card import Library, PlayedCard, playing

from vae_core import Settings, from_module
from vae_core.planning.routes import Table
from vae_core.planning.workspaces import CONTIGUOUS, ConvClass, unrolled
from vae_core.running import machines, probe, probe_file
from vae_core.running.tile import TileRunner

SHAPE = (1, 4, 2, 12, 16)
SETTINGS = Settings(tile_px=64, chunk_frames=4)
MIB = 2**20


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Probes that try nothing, kept in a folder of the test's own."""

    def told(card, dtype, known, kinds) -> Table:
        found = card.library.table(card.title(), kinds).found
        return replace(known, found={**known.found, **found})

    monkeypatch.setattr(machines, "probe", told)
    monkeypatch.setattr("vae_core.running.feedback._ROUNDING_BYTES", 0)
    probe_file.keep_in(tmp_path)
    yield
    probe_file.keep_in(None)


class Grown(Library):
    """A library that takes more than it showed when it was probed, once it is `let_go`."""

    grown = False

    def __init__(self) -> None:
        super().__init__()
        self.workspace = lambda route, x, y: 4 * (x + y) if self.grown else 0


def latents() -> torch.Tensor:
    return random_latents(*SHAPE[2:])


@pytest.fixture
def vae():
    return from_module(random_module())


def run_grown(vae, settings: Settings = SETTINGS):
    """A card whose library grew after it was probed, the plan before a run, and its peak."""
    card = PlayedCard(Grown())
    with playing(card):
        plan = vae.plan_decode(SHAPE, settings, probing=True)
        card.library.grown = True
        x = latents()
        card.counter.peak_bytes = before = card.counter.live_bytes
        found = vae.decode(x, settings)
        peak = card.counter.peak_bytes - before - found.nbytes
        after = vae.plan_decode(SHAPE, settings)
        notes = machines.raised_since(vae.device, vae.dtype, plan)
    return plan, after, peak, notes


def test_an_allowance_that_was_too_small_is_raised_and_kept(vae, caplog) -> None:
    with caplog.at_level("WARNING", "vae_core"):
        plan, after, peak, notes = run_grown(vae)
    assert plan.peak_bytes < peak <= after.peak_bytes
    assert "its libraries are allowed more from now on" in caplog.text
    assert notes
    assert all("took more memory than was allowed" in note for note in notes)
    with playing(PlayedCard(Grown())):  # another process, which reads the file
        assert vae.plan_decode(SHAPE, SETTINGS).peak_bytes == after.peak_bytes


def test_the_result_stays_the_same_and_a_second_run_learns_nothing_new(vae, caplog) -> None:
    expected = vae.decode(latents(), SETTINGS)
    card = PlayedCard(Grown())
    with playing(card):
        vae.plan_decode(SHAPE, SETTINGS, probing=True)
        card.library.grown = True
        for _ in range(3):
            found = vae.decode(latents(), SETTINGS)
            assert torch.allclose(found, expected, atol=1e-5)
        caplog.clear()
        with caplog.at_level("WARNING", "vae_core"):
            vae.decode(latents(), SETTINGS)
    assert not [r for r in caplog.records if r.name == "vae_core"]


@pytest.mark.parametrize("family", NARROW)
@pytest.mark.parametrize("each", [0, 1, 3])
def test_a_run_that_keeps_within_its_rows_raises_nothing(family, each, caplog) -> None:
    vae = from_module(NARROW[family](torch.float32))
    x = random_latents(3, 6, 8, channels=vae.latent_channels)
    card = PlayedCard(Library(lambda route, x, y: each * (x + y)))
    with playing(card), caplog.at_level("WARNING", "vae_core"):
        plan = vae.plan_decode(x.shape, SETTINGS, probing=True)
        card.counter.peak_bytes = before = card.counter.live_bytes
        found = vae.decode(x, SETTINGS)
        peak = card.counter.peak_bytes - before - found.nbytes
        assert machines.raised_since(vae.device, vae.dtype, plan) == []
    assert peak <= plan.peak_bytes
    assert not [r for r in caplog.records if r.name == "vae_core"]


def test_within_a_budget_later_tiles_are_smaller(vae, monkeypatch) -> None:
    sizes: list[tuple[str, int]] = []
    run_tile = TileRunner.run

    def noted(self, task, cells, *rest) -> None:
        sizes.append((task.step.path, cells.voxels))
        run_tile(self, task, cells, *rest)

    monkeypatch.setattr(TileRunner, "run", noted)
    free = run_grown(vae)[0]
    unbounded, sizes[:] = list(sizes), []
    probe_file.keep_in(probe_file._Kept.folder / "another")
    settings = Settings(tile_px=64, chunk_frames=4, budget_bytes=free.peak_bytes + MIB)
    run_grown(vae, settings)
    assert len(sizes) > len(unbounded)
    assert max(size for _, size in sizes) == max(size for _, size in unbounded)


def test_the_callers_mark_is_never_set_back_by_a_run(vae) -> None:
    card = PlayedCard(Library())
    with playing(card):
        vae.plan_decode(SHAPE, SETTINGS, probing=True)
        started = card.started
        vae.decode(latents(), SETTINGS)
    assert card.started == started


def test_what_was_held_before_a_run_hides_what_it_takes(vae, caplog) -> None:
    card = PlayedCard(Grown())
    with playing(card), caplog.at_level("WARNING", "vae_core"):
        plan = vae.plan_decode(SHAPE, SETTINGS, probing=True)
        card.library.grown = True
        card.counter.peak_bytes = card.counter.live_bytes + 2**40
        vae.decode(latents(), SETTINGS)
        assert machines.raised_since(vae.device, vae.dtype, plan) == []
    assert not [r for r in caplog.records if r.name == "vae_core"]


def test_no_more_is_allowed_than_any_library_takes() -> None:
    kind = ConvClass(8, 8, (3, 3, 3))
    table = Table("card")
    for _ in range(20):
        table = table.with_raised(kind, 2**40, 2**20)
    found = table.raised[kind]
    assert found.per_input == unrolled(kind).per_input + CONTIGUOUS.per_input
    assert table.with_raised(kind, 0, 2**20).raised[kind] == found


def test_a_raised_allowance_survives_a_probe_of_other_classes(vae, tmp_path) -> None:
    run_grown(vae)
    with playing(PlayedCard(Library())):
        vae.plan_encode((1, 3, 9, 32, 32), probing=True)
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["raised"]


def test_a_device_that_does_not_tell_of_its_memory_has_careful_figures(vae) -> None:
    class Silent(PlayedCard):
        def allocated_bytes(self) -> None:
            return None

        peak_bytes = allocated_bytes

    kind, card = ConvClass(4, 8, (3, 3, 3)), Silent(Library())
    with playing(card), torch.inference_mode():
        table = probe.probe(card, torch.float32, Table("silent"), {kind})
        vae.decode(latents(), SETTINGS)
    assert table.route(kind)
    assert table.workspaces.bytes(kind, 10, 20) == CONTIGUOUS.bytes(10, 20)
