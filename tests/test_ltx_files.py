"""How are VAEs of LTX read: by either names, out of a checkpoint, with what only metadata say?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract import assert_close
from ltx_files import FIRST, SECOND, authors_state, write_checkpoint
from networks import random_latents, random_video
from networks_ltx import (
    LATENTS,
    random_ltx2,
    random_ltx_090,
    random_ltx_095,
    whole_decode,
    whole_encode,
)
from safetensors.torch import save_file

import vae_core
from vae_core.errors import LoadError, LoweringError


def clips(frames: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    """A video, and latents."""
    return random_video(frames, 64, 96), random_latents(3, 2, 3, channels=LATENTS)


def test_files_by_either_names_are_read(tmp_path: Path) -> None:
    module = random_ltx2()
    module.save_pretrained(tmp_path / "vae")
    named = authors_state(module, SECOND)
    assert "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight" in named
    assert "encoder.down_blocks.1.conv.conv.bias" in named
    save_file(named, tmp_path / "a.safetensors")
    torch.save({f"vae.{name}": value for name, value in named.items()}, tmp_path / "b.pt")
    video, latents = clips()
    for path in (tmp_path / "vae", tmp_path / "a.safetensors", tmp_path / "b.pt"):
        vae = vae_core.load(path)
        facts = vae.architecture
        assert (vae.family.name, vae.ratios.px, vae.ratios.frames) == ("ltx", 32, 8)
        assert (facts.spatial_compression_ratio, facts.temporal_compression_ratio) == (32, 8)
        assert (facts.latent_channels, facts.in_channels) == (LATENTS, 3)
        assert_close(vae.decode(latents), whole_decode(module, latents))
        assert_close(vae.encode(video).moments, whole_encode(module, video))
        assert vae.latent_statistics is not None
        assert list(vae.latent_statistics.mean) == pytest.approx(module.latents_mean.tolist())


def test_the_vae_is_read_out_of_a_checkpoint(tmp_path: Path) -> None:
    module = random_ltx2()
    write_checkpoint(module, tmp_path / "ltx-2.safetensors")
    _, latents = clips()
    found = vae_core.load(tmp_path / "ltx-2.safetensors").decode(latents)
    assert_close(found, whole_decode(module, latents))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_metadata_say_what_shapes_do_not_show(tmp_path: Path, causal, mode) -> None:
    module = random_ltx2(decoder_causal=causal, decoder_spatial_padding_mode=mode)
    blocks = [["res_x", {}], ["compress_all", {"residual": True, "multiplier": 2}]] * 3
    config = {"causal_decoder": causal, "decoder_blocks": blocks}
    if mode == "zeros":
        config["spatial_padding_mode"] = mode
    metadata = {"config": json.dumps({"transformer": {}, "vae": config})}
    save_file(authors_state(module, SECOND), tmp_path / "a.safetensors", metadata)
    _, latents = clips()
    vae = vae_core.load(tmp_path / "a.safetensors")
    assert vae.decoder.looks_ahead is not causal
    assert_close(vae.decode(latents), whole_decode(module, latents))


def test_the_first_version_is_read_as_the_authors_have_it(tmp_path: Path) -> None:
    """Their decoder mirrors the picture at its edges, where diffusers' class has zeros."""
    module = random_ltx_090()
    save_file(authors_state(module, FIRST), tmp_path / "a.safetensors")
    module.save_pretrained(tmp_path / "vae")
    video, latents = clips()
    vae = vae_core.load(tmp_path / "vae")
    assert_close(vae.decode(latents), whole_decode(module, latents))
    assert_close(vae.encode(video).moments, whole_encode(module, video))
    vae = vae_core.load(tmp_path / "a.safetensors")
    assert_close(vae.encode(video).moments, whole_encode(module, video))
    for part in module.decoder.modules():
        if isinstance(part, torch.nn.Conv3d) and part.kernel_size[0] > 1:
            part.padding_mode = "reflect"
    assert_close(vae.decode(latents), whole_decode(module, latents))


@pytest.mark.parametrize("told", [None, 0.05, 0.3])
def test_decoders_that_are_told_of_noise_are(tmp_path: Path, told) -> None:
    module = random_ltx_095(timestep_conditioning=True)
    module.save_pretrained(tmp_path / "vae")
    _, latents = clips()
    temb = torch.full((1,), 0.05 if told is None else told)
    with torch.no_grad():
        whole = module.decoder(latents, temb)
        other = module.decoder(latents, temb + 0.2)
    for vae in (vae_core.from_module(module), vae_core.load(tmp_path / "vae")):
        if told is not None:
            vae = replace(vae, timestep=told)
        assert_close(vae.decode(latents), whole)
    assert float((whole - other).abs().max()) > 1e-3


def test_noise_that_is_drawn_anew_is_refused() -> None:
    module = random_ltx_095(decoder_inject_noise=(True,) * 4)
    with pytest.raises(LoweringError, match=r"adds noise that is drawn anew.*0\.9\.1"):
        vae_core.from_module(module)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["vae.decoder.conv_in_x_t.weight"], r"LTX-2\.5, whose decoder is a diffusion model"),
        (
            [
                "audio_vae.per_channel_statistics.mean-of-means",
                "decoder.mid.block_1.conv1.conv.weight",
            ],
            "an audio VAE",
        ),
        (
            ["latents_mean", "decoder.mid.block_1.conv1.conv.weight", "encoder.down.0.block.0.a"],
            "an audio VAE",
        ),
        (
            ["decoder.transformer_blocks.0.scale1", "encoder.down.5.block.0.conv1.weight"],
            "MiniMax H3",
        ),
    ],
    ids=["LTX-2.5", "LTX-2's audio", "diffusers' audio", "MiniMax H3"],
)
def test_what_lies_near_is_refused_by_name(tmp_path: Path, names, words) -> None:
    save_file({name: torch.zeros(4, 4, 3, 3) for name in names}, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=words):
        vae_core.load(tmp_path / "a.safetensors")


def test_metadata_that_are_damaged_are_said(tmp_path: Path) -> None:
    state = authors_state(random_ltx2(), SECOND)
    save_file(state, tmp_path / "a.safetensors", {"config": "{"})
    with pytest.raises(LoadError, match="config in its metadata is no JSON"):
        vae_core.load(tmp_path / "a.safetensors")
