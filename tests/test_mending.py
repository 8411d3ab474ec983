"""A device with less room than a plan took for granted: what leaves it, and what does it cost?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from card_apart import UNMADE, card_apart
from contract import assert_close
from device_bytes import DeviceBytes
from networks import NARROW, random_latents
from test_places import FREE
from test_recovery import FailAt
from torch._subclasses.fake_tensor import FakeTensorMode
from traffic import Traffic

from vae_core import Settings, from_module
from vae_core.planning.planner import eased, mended
from vae_core.running.tile import TileRunner


class FullFrom(FailAt):
    """From a step on, convolutions fail where the plan of the run takes more than a share of what
    that step was to take.
    """

    def __init__(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(CONVOLUTIONS, ())
        self.path, self.left = path, 3
        run_tile = TileRunner.run

        def noted(runner: TileRunner, task, *rest) -> None:
            if task.step.path == self.path and self.left:
                self.left -= 1
                self.numbers = {self.calls}
            run_tile(runner, task, *rest)

        monkeypatch.setattr(TileRunner, "run", noted)


@pytest.mark.parametrize("family", NARROW)
def test_memory_that_runs_out_in_any_step_changes_nothing(family, monkeypatch) -> None:
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(2, 4, 5, torch.float64, channels=vae.latent_channels)
    settings = Settings(chunk_frames=4)
    expected = vae.decode(latents, settings)
    with card_apart():
        for step in vae.plan_decode(latents.shape, settings).job.program.steps:
            with monkeypatch.context() as patch, FullFrom(step.path, patch) as mode:
                assert_close(vae.decode(latents, settings), expected)
            assert mode.failures == 3 or "attentions" in step.path


@pytest.mark.parametrize("family", FREE)
def test_a_mended_plan_takes_less_at_the_step_that_failed(family) -> None:
    with card_apart():
        vae = from_module(NARROW[family](torch.float64))
        plan = vae.plan_decode((1, vae.latent_channels, 3, 16, 20), Settings(chunk_frames=4))
    worst = max(range(len(plan.rows)), key=lambda index: plan.rows[index].peak_bytes)
    for share in (15 / 16, 1 / 4):
        less = mended(plan, worst, share)
        assert less is not None
        assert less.rows[worst].peak_bytes <= plan.rows[worst].peak_bytes * share
        assert less.chunks == plan.chunks
    assert less.moved_bytes > plan.moved_bytes == 0


@pytest.mark.parametrize("family", FREE)
def test_before_anything_leaves_tiles_are_as_small_as_that_takes(family) -> None:
    with card_apart():
        vae = from_module(NARROW[family](torch.float64))
        asked = ((1, vae.latent_channels, 3, 16, 20), Settings(chunk_frames=4))
        plan = vae.plan_decode(*asked)
        while (less := eased(plan, plan.rows.index(plan.worst), 15 / 16)).moved_bytes == 0:
            assert less.peak_bytes < plan.peak_bytes
            plan = less
        room = replace(asked[1], budget_bytes=int(0.99 * plan.peak_bytes))
        assert vae.plan_decode(asked[0], room).moved_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", UNMADE)
@pytest.mark.parametrize("share", [0.8, 0.5])
def test_a_run_that_was_mended_moves_little_more_than_one_planned_for_that_room(
    family, share
) -> None:
    """The device, played by `meta`, refuses what goes beyond a share of the projected peak."""
    with FakeTensorMode():
        vae = from_module(UNMADE[family](), device="meta")
        latents = torch.empty(1, vae.latent_channels, 7, 16, 20, dtype=torch.float32)
        settings = Settings(chunk_frames=4, placement="device")
        limit = int(share * vae.plan_decode(latents.shape, settings).peak_bytes)
        with Traffic() as planned:
            vae.decode(latents, Settings(chunk_frames=4, budget_bytes=limit))

        def refuse() -> None:
            if counter.live_bytes > limit:
                raise torch.OutOfMemoryError("the card is full")

        counter = DeviceBytes("meta", refuse)
        with counter, Traffic() as traffic:
            vae.decode(latents, settings)
    assert traffic.moved_bytes <= 1.5 * planned.moved_bytes
