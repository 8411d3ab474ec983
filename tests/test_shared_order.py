"""Do rows set out before the tiles that can do without them, and does anybody wait for them earlier
than they must?
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from networks import NARROW, random_latents
from ranks import results, seated

from vae_core import Settings, from_module
from vae_core.running.meeting import Meeting, Seat
from vae_core.running.tile import TileRunner

MIDDLE = 1
SHARED = Settings(parallel_result="bands")


class Telling(Seat):
    """A seat that notes when rows set out, and when they are waited for."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__(meeting, rank)
        self.events: list[tuple[str, object]] = []

    def swap(self, outgoing, incoming):
        if not incoming:
            return super().swap(outgoing, incoming)
        self.events.append(("set out", None))
        wait = super().swap(outgoing, incoming)

        def noted() -> None:
            self.events.append(("arrived", None))
            wait()

        return noted


def told(vae, latents, settings, monkeypatch) -> list[tuple[str, object]]:
    """What happened, one after the other, on the middle one of three ranks."""
    meeting = Meeting(3, 60.0)
    seats = tuple(Telling(meeting, rank) for rank in range(3))
    here, run = threading.local(), TileRunner.run

    def noted(self, task, cells, following=None):
        here.seat.events.append(("tile", task.step.path))
        run(self, task, cells, following)

    def work(seat):
        here.seat = seat
        return vae.decode(latents, replace(settings, parallel=seat))

    monkeypatch.setattr(TileRunner, "run", noted)
    for one in seated(seats, work):
        assert isinstance(one, torch.Tensor), one
    return seats[MIDDLE].events


def tiles_around(events) -> list[tuple[list[object], list[object]]]:
    """For every time that rows came: steps of the tiles while they were on their way, and of those
    after it until others set out.
    """
    found: list[tuple[list[object], list[object]]] = []
    way = 1
    for kind, path in events:
        if kind == "set out":
            found.append(([], []))
            way = 0
        elif kind == "arrived":
            way = 1
        elif found:
            found[-1][way].append(path)
    return found


@pytest.mark.parametrize(("tile_px", "least"), [(16, 0.5), (None, 0.2)])
@pytest.mark.parametrize("family", ["cogvideox", "wan"])
def test_inner_tiles_run_while_rows_are_on_their_way(family, tile_px, least, monkeypatch) -> None:
    """With tiles of a band's size as well, where the borders of the higher bands are cut off."""
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(1, 15, 3, torch.float64, channels=vae.latent_channels)
    around = tiles_around(told(vae, latents, replace(SHARED, tile_px=tile_px), monkeypatch))
    hidden = [pair for pair in around if all(pair)]
    assert len(hidden) >= least * len(around)
    for meanwhile, then in hidden:
        assert set(meanwhile) == {then[0]}, "a step's own tiles, and nothing of the step after it"


@pytest.mark.parametrize("family", NARROW)
def test_cut_bands_give_what_one_rank_gives(family) -> None:
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(2, 13, 3, torch.float64, channels=vae.latent_channels)
    alone, settings = vae.decode(latents), replace(SHARED, parallel_result="all")
    for one in results(3, lambda seat: vae.decode(latents, replace(settings, parallel=seat))):
        assert torch.allclose(one, alone, rtol=0, atol=1e-12)


def test_rows_are_awaited_where_a_run_ends_with_them(monkeypatch) -> None:
    """Every arrival belongs to rows that have set out, and none is left over."""
    vae = from_module(NARROW["hunyuan15"](torch.float64))
    latents = random_latents(3, 6, 3, torch.float64, channels=vae.latent_channels)
    settings = replace(SHARED, reference="core", chunk_frames=4)
    under_way = 0
    for kind, _ in told(vae, latents, settings, monkeypatch):
        under_way += {"set out": 1, "arrived": -1, "tile": 0}[kind]
        assert under_way >= 0
    assert under_way == 0
