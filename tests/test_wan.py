"""Does the engine give the pixels of diffusers' untiled Wan 2.1 and Qwen-Image, for every cut?"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import random_latents, random_video
from networks_wan import random_qwen_image, random_wan, whole_decode, whole_encode
from oracle_wan import decode, encode, weights_of

import vae_core
from vae_core import Settings, from_module
from vae_core.media.video import frames_to_tensor, read_video

LENGTHS = (1, 5, 9, 13, 21, 41)
CUTS = (
    {},
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": (16, 40)},
    {"chunk_frames": 16, "tile_px": 24, "placement": "host"},
    {"chunk_frames": 64, "placement": "mmap"},
    {"chunk_frames": 32, "tiling": "off", "placement": "caches-on-host"},
)
SIZES = ((16, 24), (24, 40), (40, 16))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CLASSES = {"wan": random_wan, "qwen image": random_qwen_image}


def pixels(frames: int, height: int, width: int, channels: int = 3, dtype=torch.float32):
    """A clip [1, channels, frames, height, width]; what is beyond RGB repeats a mirrored plane."""
    clip = random_video(frames, height, width, dtype)
    return torch.cat([clip, clip[:, :1].flip(-1)], 1)[:, :channels]


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, batch: int = 1):
    count = (frames - 1) // 4 + 1
    return random_latents(count, height // 8, width // 8, dtype, batch, channels=16)


@pytest.fixture(scope="module")
def modules():
    return {name: make() for name, make in CLASSES.items()}


@pytest.fixture(scope="module")
def wide():
    """The network in float64, and its weights for the oracle."""
    module = random_wan(dtype=torch.float64)
    return module, weights_of(module)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("frames", LENGTHS)
def test_both_ways_equal_diffusers_for_every_length(modules, frames, name) -> None:
    """Together the cases visit every cut and size."""
    size, module = SIZES[frames % 3], modules[name]
    video, latents = pixels(frames, *size), latents_of(frames, *size)
    moments, pictures = whole_encode(module, video), whole_decode(module, latents)
    start = LENGTHS.index(frames) + list(CLASSES).index(name)
    for settings in (CUTS[start % len(CUTS)], CUTS[(start + 2) % len(CUTS)]):
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("frames", [1, 5, 13, 21])
def test_float64_equals_the_one_graph_reading_to_nine_digits(wide, frames) -> None:
    module, weights = wide
    video, latents = pixels(frames, 24, 40, 3, torch.float64), latents_of(frames, 24, 40).double()
    settings = CUTS[1 + frames % 3]
    assert_close(encode_moments(module, video, **settings), encode(weights, video))
    assert_close(decode_frames(module, latents, **settings), decode(weights, latents))


@pytest.mark.parametrize("settings", CUTS[1:], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(wide, settings) -> None:
    module, _ = wide
    video, latents = pixels(13, 40, 56, 3, torch.float64), latents_of(13, 40, 56).double()
    assert_close(encode_moments(module, video, **settings), encode_moments(module, video))
    assert_close(decode_frames(module, latents, **settings), decode_frames(module, latents))


@pytest.mark.parametrize(
    "settings", [{"chunk_frames": 12, "norm_scope": "clip"}, {"layout": "diffusers"}]
)
def test_scopes_and_layouts_mean_nothing_here(wide, settings) -> None:
    module, weights = wide
    latents = latents_of(21, 16, 24).double()
    assert_close(decode_frames(module, latents, **settings), decode(weights, latents))
    video = pixels(21, 16, 24, 3, torch.float64)
    assert_close(encode_moments(module, video, **settings), encode(weights, video))


@pytest.mark.parametrize(
    ("width", "channels"), [(16, 3), (8, 4), pytest.param(96, 3, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
def test_other_widths_and_rgba_equal_diffusers(make, width, channels) -> None:
    module, settings = make(width, channels), {"chunk_frames": 4, "tile_px": 16}
    video, latents = pixels(5, 16, 24, channels), latents_of(5, 16, 24)
    assert_close(encode_moments(module, video, **settings), whole_encode(module, video))
    found = decode_frames(module, latents, **settings)
    assert found.shape == (1, channels, 5, 16, 24)
    assert_close(found, whole_decode(module, latents))


@pytest.mark.parametrize("placement", ["device", "host"])
def test_streams_in_ragged_runs_are_what_the_whole_gives(modules, placement) -> None:
    vae, settings = from_module(modules["wan"]), Settings(chunk_frames=8, placement=placement)
    video, latents = pixels(21, 16, 24), latents_of(21, 16, 24)
    runs = video.split([1, 3, 2, 7, 5, 3], dim=2)
    assert_close(
        torch.cat(list(vae.encode_stream(iter(runs), settings)), 2), whole_encode(vae.module, video)
    )
    singles = video.unbind(2)
    assert_close(
        torch.cat(list(vae.encode_stream(iter(singles))), 2), whole_encode(vae.module, video)
    )
    found = list(vae.decode_stream(latents, settings))
    assert len(found) > 1
    assert_close(torch.cat(found, 2), whole_decode(vae.module, latents))


def test_a_batch_is_what_its_clips_are(wide) -> None:
    module, weights = wide
    video, latents = random_video(5, 16, 24, torch.float64, 3), latents_of(5, 16, 24, batch=3)
    latents = latents.double()
    assert_close(encode_moments(module, video, tile_px=16), encode(weights, video))
    assert_close(decode_frames(module, latents, tile_px=16), decode(weights, latents))


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_frames_before_the_clip_ends_depend_on_no_later_one(wide, kind) -> None:
    vae = from_module(wide[0])
    settings = Settings(chunk_frames=8, tile_px=16)
    if kind == "encode":
        x, run = pixels(13, 16, 24, 3, torch.float64), lambda x: vae.encode(x, settings).moments
        kept = {1: 1, 5: 2, 9: 3}
    else:
        x, run = latents_of(13, 16, 24).double(), lambda x: vae.decode(x, settings)
        kept = {1: 1, 2: 5, 3: 9}
    whole = run(x)
    for given, made in kept.items():
        assert_close(run(x[:, :, :given]), whole[:, :, :made])
        changed = torch.cat([x[:, :, :given], x[:, :, given:].flip(2)], 2)
        assert_close(run(changed)[:, :, :made], whole[:, :, :made])


@pytest.mark.parametrize("chunk", [4, 8, 12, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_n_latent_frames_are_4n_minus_3_frames_both_ways(modules, count, chunk) -> None:
    vae, settings = from_module(modules["wan"]), Settings(chunk_frames=chunk)
    frames = 4 * count - 3
    assert vae.decode(random_latents(count, 2, 2, channels=16), settings).shape[2] == frames
    assert vae.encode(random_video(frames, 16, 16), settings).mean.shape[2] == count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_voxel_of_nothing_but_zeros_stays_finite(dtype) -> None:
    """The least length that a norm divides by is nothing in 16 bits."""
    module = random_wan(dtype=dtype)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
    assert encode_moments(module, torch.zeros(1, 3, 5, 16, 24, dtype=dtype)).isfinite().all()
    assert decode_frames(module, torch.zeros(1, 16, 2, 2, 3, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_the_error_in_16_bits_is_no_larger_than_diffusers_own(kind, dtype) -> None:
    exact, narrow = random_wan(16), random_wan(16, dtype=dtype)
    ours, theirs = 0.0, 0.0
    for seed in range(4):
        frames, size = (5, 9)[seed % 2], ((24, 40), (40, 32))[seed // 2]
        if kind == "encode":
            x, whole, run = pixels(frames, *size), whole_encode, encode_moments
        else:
            x, whole, run = latents_of(frames, *size), whole_decode, decode_frames
        expected = whole(exact, x.to(dtype).float())
        ours += float((run(narrow, x.to(dtype)) - expected).square().mean())
        theirs += float((whole(narrow, x.to(dtype)) - expected).square().mean())
    assert ours**0.5 <= 1.05 * theirs**0.5


@pytest.fixture(scope="module")
def shipped():
    """The small VAE that ships, by dtype, and pieces of the shipped clip [1, 3, t, h, w]."""
    path = vae_core.tiny_wan_vae_path()
    frames = read_video(vae_core.sample_clip_path()).frames
    pieces = frames[:9, 96:160, 200:304], frames[30:35, 8:88, 40:120]
    modules = {dtype: vae_core.load(path, dtype=dtype).module for dtype in DTYPES}
    return modules, [frames_to_tensor(piece) for piece in pieces]


@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_on_pictures_the_error_in_16_bits_is_no_larger_than_diffusers_own(
    shipped, kind, dtype
) -> None:
    modules, clips = shipped
    exact, narrow = modules[torch.float32], modules[dtype]
    whole, run = (
        (whole_encode, encode_moments) if kind == "encode" else (whole_decode, decode_frames)
    )
    ours, theirs = 0.0, 0.0
    for clip in clips:
        seen = clip if kind == "encode" else whole_encode(exact, clip).chunk(2, 1)[0]
        x = seen.to(dtype)
        expected = whole(exact, x.float())
        ours += float((run(narrow, x, tile_px=32) - expected).square().mean())
        theirs += float((whole(narrow, x) - expected).square().mean())
    assert ours**0.5 <= 1.05 * theirs**0.5
