"""Does the engine give the pixels of diffusers' untiled LTX-2 and LTX-Video, for every cut?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import random_latents, random_video
from networks_ltx import (
    LATENTS,
    random_ltx2,
    random_ltx_090,
    random_ltx_095,
    whole_decode,
    whole_encode,
)

from vae_core import Settings, from_module

LENGTHS = (1, 9, 17, 33, 57)
CUTS = (
    {},
    {"chunk_frames": 8, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": (32, 48)},
    {"chunk_frames": 16, "tile_px": 32, "placement": "host"},
    {"chunk_frames": 24, "placement": "mmap"},
    {"chunk_frames": 32, "tiling": "off", "placement": "caches-on-host"},
    {"chunk_frames": 64},
)
SIZES = ((64, 96), (96, 64), (128, 64))
NETWORKS: dict[str, Callable[..., torch.nn.Module]] = {
    "LTX-2": random_ltx2,
    "LTX-2, causal": lambda dtype=torch.float32: random_ltx2(dtype, decoder_causal=True),
    "LTX-2, zeros": lambda dtype=torch.float32: random_ltx2(
        dtype, decoder_spatial_padding_mode="zeros"
    ),
    "0.9.5": random_ltx_095,
    "0.9.5, causal": lambda dtype=torch.float32: random_ltx_095(dtype, decoder_causal=True),
    "0.9.0": random_ltx_090,
}


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, channels: int = LATENTS):
    count = (frames - 1) // 8 + 1
    return random_latents(count, height // 32, width // 32, dtype, channels=channels)


@pytest.mark.parametrize("frames", LENGTHS)
@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways_equal_diffusers_for_every_length(name, frames) -> None:
    """Together the cases visit every cut and size."""
    module, size = NETWORKS[name](), SIZES[frames % 3]
    video, latents = random_video(frames, *size), latents_of(frames, *size)
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    start = LENGTHS.index(frames) + list(NETWORKS).index(name)
    for settings in (CUTS[start % len(CUTS)], CUTS[(start + 1) % len(CUTS)]):
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("frames", [1, 25])
@pytest.mark.parametrize("name", NETWORKS)
def test_float64_equals_diffusers_to_nine_digits(name, frames) -> None:
    module, video = NETWORKS[name](torch.float64), random_video(frames, 64, 96, torch.float64)
    latents = latents_of(frames, 64, 96).double()
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    for settings in CUTS[1:4:2]:
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("settings", CUTS[1:], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(settings) -> None:
    module = random_ltx2(torch.float64)
    latents = latents_of(41, 96, 64).double()
    assert_close(decode_frames(module, latents, **settings), decode_frames(module, latents))


@pytest.mark.parametrize("placement", ["device", "host"])
def test_streams_in_ragged_runs_are_what_the_whole_gives(placement) -> None:
    module = random_ltx2()
    vae, settings = from_module(module), Settings(chunk_frames=8, placement=placement)
    video, latents = random_video(33, 64, 96), latents_of(65, 64, 96)
    runs = video.split([1, 3, 2, 7, 5, 15], dim=2)
    found = torch.cat(list(vae.encode_stream(iter(runs), settings)), 2)
    assert_close(found, whole_encode(module, video))
    pieces = list(vae.decode_stream(latents, settings))
    assert min(piece.shape[2] for piece in pieces) > 0
    assert_close(torch.cat(pieces, 2), whole_decode(module, latents))


def test_a_stream_holds_a_run_of_frames_however_long_the_clip() -> None:
    """What a clip of 121 latent frames takes, one of 41 does."""
    vae, settings = from_module(random_ltx2()), Settings(chunk_frames=8)
    plans = [vae.plan_decode((1, LATENTS, n, 4, 4), settings) for n in (41, 121)]
    assert plans[0].peak_bytes == plans[1].peak_bytes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_error_in_16_bits_is_no_larger_than_diffusers_own(kind, dtype) -> None:
    exact, narrow = random_ltx2(), random_ltx2(dtype)
    ours, theirs = 0.0, 0.0
    for seed in range(4):
        frames, size = (9, 25)[seed % 2], ((64, 96), (96, 64))[seed // 2]
        if kind == "encode":
            x, whole, run = random_video(frames, *size), whole_encode, encode_moments
        else:
            x, whole, run = latents_of(frames, *size), whole_decode, decode_frames
        expected = whole(exact, x.to(dtype).float())
        ours += float((run(narrow, x.to(dtype)) - expected).square().mean())
        theirs += float((whole(narrow, x.to(dtype)) - expected).square().mean())
    assert ours**0.5 <= 1.05 * theirs**0.5


def test_batches_are_decoded_side_by_side() -> None:
    module = random_ltx2()
    latents = random_latents(4, 3, 2, channels=LATENTS, batch=2)
    found = decode_frames(module, latents, chunk_frames=8)
    assert_close(found, whole_decode(module, latents))


def test_blended_tiles_are_cut_in_space_alone() -> None:
    """Crops as large as the picture have nothing to blend, and are run in the same bands."""
    module, latents = random_ltx2(), random_latents(5, 4, 4, channels=LATENTS)
    settings = {"tiling": "blend", "tile_px": 128, "overlap_px": 32, "chunk_frames": 8}
    assert_close(decode_frames(module, latents, **settings), whole_decode(module, latents))
    small = decode_frames(module, latents, **{**settings, "tile_px": 96})
    assert small.shape == (1, 3, 33, 128, 128)
