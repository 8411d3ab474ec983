"""Does the engine give the reference's pixels, for every cut and shape?"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import diffusers_decode, diffusers_encode, random_latents, random_module, random_video
from oracle import decode_aligned, encode_aligned

FRAMES = (1, 2, 4, 5, 8, 9, 12, 15, 16, 17, 49, 53)
CHUNKS = (4, 8, 12, 32)
SIZES = ((72, 40), (16, 16), (24, 88))
TILES = (16, (24, 40), None)


@pytest.fixture(scope="module")
def modules():
    return {dtype: random_module(dtype) for dtype in (torch.float32, torch.float64)}


def tile_for(frames: int, chunk: int):
    """A tile size that goes with these; together the cases visit all of them."""
    return TILES[(FRAMES.index(frames) + CHUNKS.index(chunk)) % len(TILES)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", FRAMES)
def test_diffusers_layout_encodes_as_diffusers_does(modules, frames, chunk, dtype) -> None:
    size = SIZES[(frames + chunk) % len(SIZES)]
    video = random_video(frames, *size, dtype)
    expected = diffusers_encode(modules[dtype], video, chunk)
    found = encode_moments(
        modules[dtype],
        video,
        chunk_frames=chunk,
        layout="diffusers",
        tile_px=tile_for(frames, chunk),
    )
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 7, 13])
def test_diffusers_layout_decodes_as_diffusers_does(modules, frames, chunk, dtype) -> None:
    """Even where the reference loses frames (chunks of an odd number of latent frames) its counts
    are reproduced.
    """
    height, width = ((9, 5), (2, 2), (3, 11))[(frames + chunk) % 3]
    latents = random_latents(frames, height, width, dtype)
    expected = diffusers_decode(modules[dtype], latents, chunk)
    found = decode_frames(
        modules[dtype],
        latents,
        chunk_frames=chunk,
        layout="diffusers",
        tile_px=TILES[(frames + chunk) % 3],
    )
    assert_close(found, expected)


@pytest.mark.parametrize("tile", [16, 24, (16, 64), (72, 200), None])
def test_every_tile_size_gives_the_same_pixels_on_a_picture_that_is_not_square(
    modules, tile
) -> None:
    video = random_video(9, 72, 200)
    expected = diffusers_encode(modules[torch.float32], video, 8)
    found = encode_moments(modules[torch.float32], video, tile_px=tile, layout="diffusers")
    assert_close(found, expected)
    latents = expected.chunk(2, dim=1)[0]
    frames = diffusers_decode(modules[torch.float32], latents, 8)
    assert_close(
        decode_frames(modules[torch.float32], latents, tile_px=tile, layout="diffusers"), frames
    )


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", [1, 5, 9, 17, 21, 49])
def test_aligned_encode_equals_the_plain_executor_on_the_same_chunks(
    modules, frames, chunk
) -> None:
    video = random_video(frames, 40, 24, torch.float64)
    expected = encode_aligned(modules[torch.float64], video, chunk)
    assert_close(
        encode_moments(modules[torch.float64], video, chunk_frames=chunk, tile_px=16), expected
    )


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 13])
def test_aligned_decode_equals_the_plain_executor_on_the_same_chunks(
    modules, frames, chunk
) -> None:
    latents = random_latents(frames, 5, 3, torch.float64)
    expected = decode_aligned(modules[torch.float64], latents, chunk)
    assert expected.shape[2] == 4 * (frames - 1) + 1
    assert_close(
        decode_frames(modules[torch.float64], latents, chunk_frames=chunk, tile_px=16), expected
    )


def test_a_batch_is_encoded_as_its_clips_are(modules) -> None:
    video = random_video(9, 24, 40, torch.float64, batch=3)
    alone = torch.cat(
        [encode_moments(modules[torch.float64], clip, tile_px=16) for clip in video.split(1)]
    )
    assert_close(encode_moments(modules[torch.float64], video, tile_px=16), alone)


def test_the_plain_executor_itself_agrees_with_diffusers_on_one_chunk(modules) -> None:
    video = random_video(17, 24, 32, torch.float64)
    moments, _ = modules[torch.float64].encoder(video)
    assert_close(encode_aligned(modules[torch.float64], video, 32), moments)
    latents = random_latents(5, 3, 4, torch.float64)
    frames, _ = modules[torch.float64].decoder(latents)
    assert_close(decode_aligned(modules[torch.float64], latents, 32), frames)
