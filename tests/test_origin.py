"""Is padding taken off where it lies, and nowhere else, whatever was done to latents meanwhile?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pack import part, run
from torch import Tensor

origin = part("nodes.bridge.origin")

FRAMES, HEIGHT, WIDTH = 10, 27, 33
WHOLE = (13, 32, 40)


@pytest.fixture(scope="module")
def vae():
    return run("ExactVAELoader")[0]


def a_clip(seed: int = 0, frames: int = FRAMES) -> Tensor:
    """An IMAGE [t, h, w, 3] with a picture in it, not noise alone."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 3, 3, 4, generator=generator)
    size = (frames, HEIGHT, WIDTH)
    video = torch.nn.functional.interpolate(coarse, size, mode="trilinear")
    return video[0].permute(1, 2, 3, 0)


@pytest.fixture(scope="module")
def encoded(vae) -> dict[str, Any]:
    return run("ExactVAEEncodeTiled", images=a_clip(), vae=vae)[0]


def decoded(vae, latent: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    """The size of what a latent decodes to, and the report."""
    images, told = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    return tuple(images.shape[:3]), told


def changed(latent: dict[str, Any], change: Callable[[Tensor], Tensor], **more: Any):
    """A LATENT as a node between would give it on: other samples, the rest copied."""
    return {**latent, "samples": change(latent["samples"]), **more}


def noised(samples: Tensor) -> Tensor:
    """About what a sampler makes at half strength."""
    noise = torch.randn(samples.shape, generator=torch.Generator().manual_seed(5))
    return 0.7 * samples + 0.4 * samples.std() * noise


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "as it was": lambda s: s,
    "in half precision": lambda s: s.to(torch.bfloat16).float(),
    "by a sampler": noised,
    "times a factor": lambda s: 0.7 * s,
    "replaced by noise": lambda s: torch.randn(s.shape, generator=torch.Generator().manual_seed(1)),
    "copied": lambda s: s.repeat(2, 1, 1, 1, 1),
}
MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped left to right": lambda s: s.flip(4),
    "flipped upside down": lambda s: s.flip(3),
    "turned by 180 degrees": lambda s: s.flip(3, 4),
    "reversed in time": lambda s: s.flip(2),
    "reversed and flipped": lambda s: s.flip(2, 4),
    "sampled, then flipped": lambda s: noised(s).flip(4),
    "flipped, then sampled": lambda s: noised(s.flip(3)),
}


@pytest.mark.parametrize("how", KEPT)
def test_padding_is_taken_off_latents_that_lie_as_they_did(vae, encoded, how):
    (frames, *sides), told = decoded(vae, changed(encoded, KEPT[how]))
    assert sides == [HEIGHT, WIDTH]
    assert frames % FRAMES == 0
    assert "Padding taken off" in told


@pytest.mark.parametrize("how", MOVED)
def test_nothing_is_taken_off_latents_that_were_turned(vae, encoded, how):
    size, told = decoded(vae, changed(encoded, MOVED[how]))
    assert size == WHOLE
    assert "flipped, turned or reversed" in told


def test_a_square_clip_that_was_turned_by_90_degrees_is_left_whole(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=a_clip()[:, :, :HEIGHT], vae=vae)
    size, told = decoded(vae, changed(latent, lambda s: s.transpose(3, 4).flip(3)))
    assert size == (13, 32, 32)
    assert "flipped, turned or reversed" in told


@pytest.mark.parametrize("frames", [10, 11, 13])
def test_latents_that_were_batched_with_another_clip_are_left_whole(vae, encoded, frames):
    other, _ = run("ExactVAEEncodeTiled", images=a_clip(1, frames), vae=vae)
    both = changed(encoded, lambda s: torch.cat([s, other["samples"]]), batch_index=[0, 1])
    size, told = decoded(vae, both)
    assert size == (26, 32, 40)
    assert "batched with others" in told
    taken = changed(both, lambda s: s[1:], batch_index=[1])
    assert decoded(vae, taken)[0] == WHOLE
    taken = changed(both, lambda s: s[:1], batch_index=[0])
    assert decoded(vae, taken)[0] == (FRAMES, HEIGHT, WIDTH)


def test_a_longer_cut_of_the_same_clip_loses_no_frame_in_a_batch(vae, encoded):
    longer, _ = run("ExactVAEEncodeTiled", images=a_clip(0, 13), vae=vae)
    both = changed(encoded, lambda s: torch.cat([s, longer["samples"]]), batch_index=[0, 1])
    assert decoded(vae, both)[0] == (26, 32, 40)


def test_a_clip_of_one_colour_lies_the_same_from_every_side(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=torch.full((10, 27, 33, 3), 0.4), vae=vae)
    assert decoded(vae, latent)[0] == (FRAMES, HEIGHT, WIDTH)


def test_the_video_node_follows_the_same_rule(vae, encoded):
    _, told = run("ExactVAEDecodeVideo", samples=changed(encoded, lambda s: s.flip(4)), vae=vae)
    assert "13 frames of 32x40" in told
    assert "flipped, turned or reversed" in told
    _, told = run("ExactVAEDecodeVideo", samples=encoded, vae=vae)
    assert "10 frames of 27x33 written" in told


def test_a_look_is_the_same_from_every_side():
    samples = torch.randn(1, 16, 11, 21, 13, generator=torch.Generator().manual_seed(0))
    look = origin._looks(samples)
    for dim in (2, 3, 4):
        torch.testing.assert_close(origin._looks(samples.flip(dim)), look.flip(dim))
