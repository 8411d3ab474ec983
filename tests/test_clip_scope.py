"""Statistics over the whole clip: does framewise memory give the pixels of one whole-clip pass?"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import random_latents, random_module, random_video

TILES = (16, 24, None)
CHUNKS = (4, 8, 16)


@pytest.fixture(scope="module")
def modules():
    return {dtype: random_module(dtype) for dtype in (torch.float32, torch.float64)}


def whole_encode(module, video):
    """One pass of diffusers' encoder over the whole clip."""
    return module.encoder(video)[0]


def whole_decode(module, latents):
    """One pass of diffusers' decoder over the whole clip: 4n frames where n is even."""
    return module.decoder(latents)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", [1, 5, 9, 17, 33, 49])
def test_clip_scope_encodes_as_one_whole_pass_does(modules, frames, chunk, dtype) -> None:
    video = random_video(frames, 24, 40, dtype)
    tile = TILES[(frames // 4 + chunk // 4) % 3]
    found = encode_moments(
        modules[dtype], video, chunk_frames=chunk, tile_px=tile, norm_scope="clip"
    )
    assert_close(found, whole_encode(modules[dtype], video))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", range(1, 14))
def test_clip_scope_decodes_as_one_whole_pass_does(modules, frames, chunk, dtype) -> None:
    """For an even count the reference's own rule, four frames for every latent, is asked for."""
    latents = random_latents(frames, 3, 5, dtype)
    found = decode_frames(
        modules[dtype],
        latents,
        chunk_frames=chunk,
        tile_px=TILES[(frames + chunk // 4) % 3],
        norm_scope="clip",
        layout="aligned" if frames % 2 else "diffusers",
    )
    assert_close(found, whole_decode(modules[dtype], latents))


@pytest.mark.parametrize("layout", ["aligned", "diffusers"])
def test_the_chunk_size_changes_nothing_in_clip_scope(modules, layout) -> None:
    video, latents = random_video(17, 24, 40), random_latents(6, 3, 5)
    scope = {"norm_scope": "clip", "tile_px": 24, "layout": layout}
    moments = [
        encode_moments(modules[torch.float32], video, chunk_frames=c, **scope) for c in CHUNKS
    ]
    frames = [
        decode_frames(modules[torch.float32], latents, chunk_frames=c, **scope) for c in CHUNKS
    ]
    for found in moments[1:]:
        assert_close(found, moments[0], 1e-5)
    for found in frames[1:]:
        assert_close(found, frames[0], 1e-5)
