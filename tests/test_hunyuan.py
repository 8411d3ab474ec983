"""Does the engine give what HunyuanVideo gives of the whole clip, for every cut and file?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from networks import random_latents, random_video
from networks_hunyuan import clip_decode, clip_encode, random_hunyuan
from safetensors.torch import save_file

import vae_core
from vae_core import Settings, SettingsError, from_module

LENGTHS = (1, 5, 9, 13, 21)
CUTS = (
    {},
    {"chunk_frames": 4, "tile_px": 16},
    {"chunk_frames": 8, "tile_px": (16, 48), "norm_scope": "clip"},
    {"chunk_frames": 16, "tile_px": 32, "placement": "host"},
    {"chunk_frames": 64, "placement": "mmap"},
    {"chunk_frames": 32, "tiling": "off", "placement": "caches-on-host"},
)
SIZES = ((24, 40), (40, 16), (32, 24))


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, channels: int = 4):
    count = (frames - 1) // 4 + 1
    return random_latents(count, height // 8, width // 8, dtype, channels=channels)


@pytest.fixture(scope="module")
def module():
    return random_hunyuan()


@pytest.mark.parametrize("frames", LENGTHS)
def test_both_ways_equal_diffusers_for_every_length(module, frames) -> None:
    """Together the cases visit every cut and size."""
    size = SIZES[frames % 3]
    video, latents = random_video(frames, *size), latents_of(frames, *size)
    moments, pictures = clip_encode(module, video), clip_decode(module, latents)
    start = LENGTHS.index(frames)
    for settings in (CUTS[start % len(CUTS)], CUTS[(start + 1) % len(CUTS)]):
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("frames", [1, 13])
def test_float64_equals_diffusers_to_nine_digits(frames) -> None:
    module, video = random_hunyuan(torch.float64), random_video(frames, 24, 40, torch.float64)
    latents = latents_of(frames, 24, 40).double()
    moments, pictures = clip_encode(module, video), clip_decode(module, latents)
    for settings in CUTS[1:3]:
        assert_close(encode_moments(module, video, **settings), moments)
        assert_close(decode_frames(module, latents, **settings), pictures)


@pytest.mark.parametrize("settings", CUTS[1:], ids=str)
def test_no_cut_and_no_place_changes_a_pixel(settings) -> None:
    module = random_hunyuan(torch.float64)
    video, latents = random_video(13, 40, 48, torch.float64), latents_of(13, 40, 48).double()
    assert_close(encode_moments(module, video, **settings), encode_moments(module, video))
    assert_close(decode_frames(module, latents, **settings), decode_frames(module, latents))


def test_streams_are_what_the_whole_gives(module) -> None:
    vae, settings = from_module(module), Settings(chunk_frames=8)
    video, latents = random_video(21, 24, 40), latents_of(21, 24, 40)
    runs = video.split([1, 3, 2, 7, 5, 3], dim=2)
    found = torch.cat(list(vae.encode_stream(iter(runs), settings)), 2)
    assert_close(found, clip_encode(module, video))
    pictures = torch.cat(list(vae.decode_stream(latents, settings)), 2)
    assert_close(pictures, clip_decode(module, latents))


def test_diffusers_folder_and_file_are_read(tmp_path: Path, module) -> None:
    module.save_pretrained(tmp_path / "vae")
    latents = latents_of(5, 16, 24)
    whole = clip_decode(module, latents)
    vae = vae_core.load(tmp_path / "vae")
    assert (vae.family.name, vae.ratios.px, vae.latent_channels) == ("hunyuan", 8, 4)
    assert vae.architecture.norm_num_groups == 4
    assert vae.scaling_factor == 0.476986
    assert_close(vae.decode(latents), whole)


def test_core_s_names_are_read(tmp_path: Path) -> None:
    module = random_hunyuan(widths=(32, 32, 64, 64))
    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.num_groups = 32
    named = {core_name(name): as_core(name, value) for name, value in module.state_dict().items()}
    assert named["decoder.mid.attn_1.q.weight"].ndim == 5
    save_file(named, tmp_path / "hunyuan_video_vae_bf16.safetensors")
    latents = latents_of(5, 16, 24)
    vae = vae_core.load(tmp_path / "hunyuan_video_vae_bf16.safetensors")
    assert_close(vae.decode(latents), clip_decode(module, latents))


PARTS = {
    ".mid_block.resnets.0.": ".mid.block_1.",
    ".mid_block.attentions.0.group_norm.": ".mid.attn_1.norm.",
    ".mid_block.attentions.0.to_out.0.": ".mid.attn_1.proj_out.",
    ".mid_block.attentions.0.to_": ".mid.attn_1.",
    ".mid_block.resnets.1.": ".mid.block_2.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".resnets.": ".block.",
    ".down_blocks.": ".down.",
    ".conv_shortcut.": ".nin_shortcut.",
    ".conv_norm_out.": ".norm_out.",
}


def core_name(name: str) -> str:
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    for level in range(4):
        name = name.replace(f".up_blocks.{level}.", f".up.{3 - level}.")
    return name


def as_core(name: str, value: torch.Tensor) -> torch.Tensor:
    linear = ".attentions.0.to_" in name and value.ndim == 2
    return value[:, :, None, None, None] if linear else value


def test_core_s_result_is_refused_with_a_sentence(module) -> None:
    with pytest.raises(SettingsError, match="core's result is not to be had for this network"):
        decode_frames(module, latents_of(5, 16, 24), reference="core")
