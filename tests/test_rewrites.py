"""Rewritten programs: the same result as the plain one in float64, for less work."""

from __future__ import annotations

import pytest
import torch
from contract import assert_close
from networks import random_latents, random_module, random_video

from vae_core import Settings, VideoVAE, from_module
from vae_core.geometry.region import Extent
from vae_core.program.known import operations_of
from vae_core.program.rewrites import narrow_in_place, still_frame, unique_frames
from vae_core.program.steps import SOURCE

MODULE = random_module(torch.float64)
SETTINGS = Settings(chunk_frames=4, tile_px=16)


def plain(program, _settings, _frames):
    return program


def unrolled(rewrite):
    """In place of the choice of rewrites: this one alone."""
    return staticmethod(lambda program, _settings, _frames: rewrite(program))


def results(frames: int) -> list[torch.Tensor]:
    """Moments and frames of a clip of so many latent frames."""
    vae = from_module(MODULE)
    video = random_video(4 * frames - 3, 24, 40, torch.float64)
    latents = random_latents(frames, 3, 5, torch.float64)
    return [vae.encode(video, SETTINGS).moments, vae.decode(latents, SETTINGS)]


@pytest.mark.parametrize(
    ("rewrite", "frames"),
    [
        (unique_frames, 1),
        (unique_frames, 4),
        (narrow_in_place, 4),
        (still_frame, 1),
        (lambda program: narrow_in_place(still_frame(program)), 1),
    ],
)
def test_a_rewrite_gives_what_the_plain_program_gives(rewrite, frames, monkeypatch) -> None:
    monkeypatch.setattr(VideoVAE, "_rewritten", staticmethod(plain))
    expected = results(frames)
    monkeypatch.setattr(VideoVAE, "_rewritten", unrolled(rewrite))
    for found, whole in zip(results(frames), expected, strict=True):
        assert_close(found, whole, 1e-10)


@pytest.mark.parametrize("layout", ["aligned", "diffusers"])
def test_one_frame_is_run_with_summed_taps(layout) -> None:
    vae = from_module(MODULE)
    for program, plan in (
        (vae.encoder, vae.plan_encode((1, 3, 1, 24, 40), Settings(layout=layout))),
        (vae.decoder, vae.plan_decode((1, 4, 1, 3, 5), Settings(layout=layout))),
    ):
        px = program.stores[SOURCE].px
        clip = Extent(1, 24 // px, 40 // px)
        plain_operations = operations_of(program, clip, plan.chunks[0])
        assert plan.operations < 0.45 * plain_operations


def test_the_first_of_many_frames_keeps_its_taps() -> None:
    steps = from_module(MODULE).plan_encode((1, 3, 5, 24, 40)).job.program.steps
    assert not any(step.still for step in steps)
