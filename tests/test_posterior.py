"""Is our posterior the reference's, and does a seed mean the same latents however they were cut?"""

from __future__ import annotations

import functools

import pytest
import torch
from contract import assert_close
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from networks import random_module, random_video

from vae_core import Extent, NormScope, Settings, from_module
from vae_core.geometry.fitting import Fitted
from vae_core.posterior import Posterior

UNFITTED = Fitted(Extent(9, 24, 32), Extent(9, 24, 32), ())
TILES = (16, 24, (16, 64), (48, 16), None)
CHUNKS = (4, 8, 12, 16, 32)


def random_moments(dtype: torch.dtype = torch.float32, batch: int = 2) -> torch.Tensor:
    """[batch, 2 * 4, 3, 3, 4]: means and log-variances of a few units."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(batch, 8, 3, 3, 4, generator=generator)).to(dtype)


def posterior_of(moments: torch.Tensor) -> Posterior:
    return Posterior.from_moments(moments, UNFITTED)


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_mode_and_divergence_are_the_references(dtype) -> None:
    moments = random_moments(dtype)
    ours, reference = posterior_of(moments), DiagonalGaussianDistribution(moments)
    for name in ("mean", "logvar", "std"):
        assert torch.equal(getattr(ours, name), getattr(reference, name))
    assert torch.equal(ours.mode(), reference.mode())
    # The reference was written for pictures: it leaves the width unsummed.
    assert ours.kl().shape == (2,)
    assert_close(ours.kl(), reference.kl().sum(dim=-1), 1e-5)


def test_a_seed_gives_the_references_sample() -> None:
    moments = random_moments()
    expected = DiagonalGaussianDistribution(moments).sample(seeded())
    assert torch.equal(posterior_of(moments).sample(seeded()), expected)


def test_a_seed_gives_the_same_sample_in_every_dtype() -> None:
    moments = random_moments(torch.bfloat16)
    samples = {
        dtype: posterior_of(moments.to(dtype)).sample(seeded())
        for dtype in (torch.float64, torch.float32, torch.bfloat16)
    }
    assert all(sample.dtype == dtype for dtype, sample in samples.items())
    assert_close(samples[torch.float32], samples[torch.float64], 1e-6)
    assert_close(samples[torch.bfloat16].double(), samples[torch.float64], 1e-2)


def test_without_a_generator_the_global_seed_counts() -> None:
    posterior = posterior_of(random_moments())
    torch.manual_seed(7)
    first = posterior.sample()
    torch.manual_seed(7)
    assert torch.equal(posterior.sample(), first)
    assert not torch.equal(posterior.sample(), first)


def test_samples_have_the_posteriors_mean_and_spread() -> None:
    moments = torch.cat(
        [torch.full((1, 4, 16, 16, 16), 3.0), torch.full((1, 4, 16, 16, 16), -1.0)], 1
    )
    sample = posterior_of(moments).sample(seeded())
    assert float(sample.mean()) == pytest.approx(3.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(torch.tensor(-0.5).exp().item(), abs=0.02)


@pytest.mark.parametrize("logvar", [-1e4, -31.0, 21.0, 1e4])
def test_the_logarithm_of_the_variance_is_clamped_as_the_references(logvar) -> None:
    moments = random_moments()
    moments[:, 4:] = logvar
    ours, reference = posterior_of(moments), DiagonalGaussianDistribution(moments)
    assert torch.equal(ours.logvar, reference.logvar)
    assert torch.isfinite(ours.kl()).all()
    assert torch.equal(ours.sample(seeded()), reference.sample(seeded()))


def test_moments_go_through_a_round_trip_unchanged() -> None:
    moments = random_moments()
    posterior = posterior_of(moments)
    assert torch.equal(posterior.moments, moments)
    again = posterior_of(posterior.moments)
    assert torch.equal(again.sample(seeded()), posterior.sample(seeded()))


def test_the_divergence_of_the_unit_gaussian_is_zero() -> None:
    assert posterior_of(torch.zeros(3, 8, 2, 2, 2)).kl().tolist() == [0.0, 0.0, 0.0]


@functools.cache
def sample(scope: NormScope, tile, chunk: int, seed: int = 5) -> torch.Tensor:
    """Latents of one clip of 17 sample frames."""
    settings = Settings(chunk_frames=chunk, tile_px=tile, norm_scope=scope)
    posterior = from_module(random_module()).encode(random_video(17, 40, 56), settings)
    return posterior.sample(seeded(seed))


@pytest.mark.parametrize(("tile", "chunk"), list(zip(TILES, CHUNKS, strict=True)))
def test_clip_scope_gives_a_seed_one_sample_over_tilings_and_chunkings(tile, chunk) -> None:
    assert_close(sample(NormScope.CLIP, tile, chunk), sample(NormScope.CLIP, None, 8), 1e-4)


@pytest.mark.parametrize("tile", TILES)
def test_chunk_scope_gives_a_seed_one_sample_over_tilings(tile) -> None:
    assert_close(sample(NormScope.CHUNK, tile, 8), sample(NormScope.CHUNK, (40, 56), 8), 1e-4)


def test_another_seed_gives_another_sample() -> None:
    assert not torch.allclose(
        sample(NormScope.CLIP, None, 8), sample(NormScope.CLIP, None, 8, seed=6), atol=1e-2
    )
