"""Does the engine give the authors' Mochi, untiled, for every cut and file?

diffusers' own blocks are the reference; ComfyUI's own class is one in the host tier.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments, relative_error
from networks import random_latents, random_video
from networks_mochi import narrow_mochi, random_mochi, unsettled, whole_decode, whole_encode
from safetensors.torch import save_file

import vae_core
from vae_core import Settings, from_module
from vae_core.errors import InputError, SettingsError
from vae_core.families.latent_statistics import LATENT_STATISTICS
from vae_core.jobs.options import vae_path

LENGTHS = (1, 7, 13, 19, 31)
CUTS = (
    {},
    {"chunk_frames": 12, "tile_px": 16},
    {"chunk_frames": 12, "tile_px": (16, 48)},
    {"chunk_frames": 24, "tile_px": 32, "placement": "host"},
    {"chunk_frames": 48, "placement": "mmap"},
    {"chunk_frames": 36, "tiling": "off", "placement": "caches-on-host"},
)
SIZES = ((24, 40), (48, 16), (32, 24))


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, batch: int = 1):
    count = (frames - 1) // 6 + 1
    return random_latents(count, height // 8, width // 8, dtype, batch=batch)


@pytest.fixture(scope="module")
def module():
    return random_mochi()


@pytest.mark.parametrize("frames", LENGTHS)
def test_both_ways_equal_the_whole_network_for_every_length(module, frames) -> None:
    """Together the cases visit every cut and size."""
    size = SIZES[frames % 3]
    video, latents = random_video(frames, *size), latents_of(frames, *size)
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    start = LENGTHS.index(frames)
    for settings in (CUTS[start % len(CUTS)], CUTS[(start + 1) % len(CUTS)]):
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("frames", [1, 19])
def test_float64_equals_the_whole_network_to_nine_digits(frames) -> None:
    module, video = random_mochi(torch.float64), random_video(frames, 24, 40, torch.float64)
    latents = latents_of(frames, 24, 40).double()
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    for settings in CUTS[1:3]:
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("settings", [*CUTS[1:], {"norm_scope": "clip"}], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(settings) -> None:
    module = random_mochi(torch.float64)
    video, latents = random_video(19, 32, 48, torch.float64), latents_of(19, 32, 48).double()
    assert_close(encode_moments(module, video, **settings), encode_moments(module, video))
    assert_close(decode_frames(module, latents, **settings), decode_frames(module, latents))


@pytest.mark.parametrize("placement", ["device", "host"])
def test_streams_in_ragged_runs_are_what_the_whole_gives(module, placement) -> None:
    vae, settings = from_module(module), Settings(chunk_frames=12, placement=placement)
    video, latents = random_video(31, 16, 24), latents_of(31, 16, 24)
    runs = video.split([1, 3, 2, 7, 5, 13], dim=2)
    found = torch.cat(list(vae.encode_stream(iter(runs), settings)), 2)
    assert_close(found, whole_encode(module, video))
    pictures = torch.cat(list(vae.decode_stream(latents, settings)), 2)
    assert_close(pictures, whole_decode(module, latents))


def test_later_frames_change_nothing_that_came_before_them(module) -> None:
    video, latents = random_video(19, 16, 24), latents_of(19, 16, 24)
    whole = decode_frames(module, latents)
    assert_close(decode_frames(module, latents[:, :, :3]), whole[:, :, :13])
    moments = encode_moments(module, video)
    assert_close(encode_moments(module, video[:, :, :13]), moments[:, :, :3])


def test_diffusers_own_first_frames_are_others(module) -> None:
    """It leaves out the first frames of the finished clip, where the authors do so in each level."""
    latents = latents_of(7, 16, 24)
    theirs = module._decode(latents).sample
    assert relative_error(decode_frames(module, latents), theirs) > 1e-3
