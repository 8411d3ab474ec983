"""Does the plain one-graph reading of Wan 2.1 say what diffusers' own chunked loop says?"""

from __future__ import annotations

import authors_wan
import networks_wan
import oracle_wan
import pytest
import torch
from networks import random_latents, random_video

# Largest error in shares of the range.
EXACT = 1e-9
SINGLE = 1e-4


def assert_close(got: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """Equal shapes, and no value off by more than a share of the expected range."""
    assert got.shape == expected.shape
    extent = float(expected.max() - expected.min())
    assert float((got - expected).abs().max()) <= share * extent


def pixels(frames: int, height: int, width: int, channels: int, dtype: torch.dtype):
    """A clip [1, channels, frames, height, width]; what is beyond RGB repeats a shifted plane."""
    clip = random_video(frames, height, width, dtype)
    return torch.cat([clip, clip[:, :1].flip(-1)], 1)[:, :channels]


@pytest.mark.parametrize("make", [networks_wan.random_wan, networks_wan.random_qwen_image])
@pytest.mark.parametrize("frames", [1, 5, 9, 13])
@pytest.mark.parametrize("channels", [3, 4])
def test_one_graph_equals_diffusers_chunks_in_float64(make, frames, channels):
    module = make(channels=channels, dtype=torch.float64)
    weights = oracle_wan.weights_of(module)
    clip = pixels(frames, 24, 40, channels, torch.float64)
    assert_close(oracle_wan.encode(weights, clip), networks_wan.whole_encode(module, clip), EXACT)
    latents = random_latents((frames + 3) // 4, 3, 5, torch.float64, channels=16)
    decoded = networks_wan.whole_decode(module, latents)
    assert decoded.shape == (1, channels, frames, 24, 40)
    assert_close(oracle_wan.decode(weights, latents), decoded, EXACT)


@pytest.mark.parametrize(
    ("width", "frames"), [(16, 9), pytest.param(96, 5, marks=pytest.mark.slow)]
)
def test_one_graph_equals_diffusers_at_other_widths_in_float32(width, frames):
    module = networks_wan.random_wan(width)
    weights = oracle_wan.weights_of(module)
    clip = pixels(frames, 16, 24, 3, torch.float32)
    assert_close(oracle_wan.encode(weights, clip), networks_wan.whole_encode(module, clip), SINGLE)
    latents = random_latents((frames + 3) // 4, 2, 3, channels=16)
    assert_close(
        oracle_wan.decode(weights, latents), networks_wan.whole_decode(module, latents), SINGLE
    )


def test_the_oracle_of_the_first_latents_is_the_start_of_the_whole():
    weights = oracle_wan.weights_of(networks_wan.random_wan(dtype=torch.float64))
    latents = random_latents(4, 2, 3, torch.float64, channels=16)
    whole = oracle_wan.decode(weights, latents)
    for count in (1, 2, 3):
        start = oracle_wan.decode(weights, latents[:, :, :count])
        assert_close(start, whole[:, :, : 4 * count - 3], EXACT)


def test_random_attention_prefers_some_places():
    """Even attention would let a wrong set of keys pass unseen."""
    module = networks_wan.random_wan(dtype=torch.float64)
    x = torch.randn(1, 32, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = oracle_wan.weights_of(module)
    x = oracle_wan.norm(weights, "decoder.middle.1.norm", x[:, :, 0])
    query, key, _ = oracle_wan.conv(weights, "decoder.middle.1.to_qkv", x).flatten(2).chunk(3, 1)
    shares = torch.softmax(query.transpose(1, 2) @ key / 32**0.5, -1)
    assert float(shares.max()) > 4 / shares.shape[-1]


@pytest.mark.parametrize("channels", [3, 4])
def test_the_authors_tree_takes_every_weight_and_keeps_its_order(channels):
    module = networks_wan.random_wan(channels=channels)
    tree = authors_wan.WanVAE(module)
    weights = oracle_wan.weights_of(module)
    held = tree.state_dict()
    assert set(held) == set(weights)
    assert all(torch.equal(held[name], value) for name, value in weights.items())
    assert oracle_wan.weights_of(tree).keys() == held.keys()
    clip = pixels(5, 16, 24, channels, torch.float32)
    expected = networks_wan.whole_encode(module, clip)
    assert_close(oracle_wan.encode(oracle_wan.weights_of(tree), clip), expected, SINGLE)
