"""Does the engine give what diffusers' untiled HunyuanVideo 1.5 gives, for all cuts and files?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from hunyuan_files import authors_state
from networks import random_latents, random_video
from networks_hunyuan import random_hunyuan_1_5, whole_decode, whole_encode
from safetensors.torch import save_file

import vae_core
from vae_core import from_module
from vae_core.errors import InputError, LoadError, SettingsError
from vae_core.jobs.options import vae_path
from vae_core.program.parts import Attend


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, channels: int = 4):
    count = (frames - 1) // 4 + 1
    return random_latents(count, height // 16, width // 16, dtype, channels=channels)


@pytest.fixture(scope="module")
def module():
    return random_hunyuan_1_5()


WIDER = {
    "levels of other widths": {"widths": (8, 16, 32, 32, 32), "blocks": 2},
    "a shortcut where channels change": {
        "widths": (8, 16, 16, 32, 32),
        "downsample_match_channel": False,
        "upsample_match_channel": False,
    },
    "three levels of half the size": {
        "widths": (8, 16, 16, 16),
        "spatial_compression_ratio": 8,
    },
}


@pytest.mark.parametrize("numbers", WIDER.values(), ids=WIDER)
def test_other_widths_and_depths_are_read_off_the_module(numbers) -> None:
    module = random_hunyuan_1_5(**numbers)
    px = module.config.spatial_compression_ratio
    video = random_video(9, 2 * px, 3 * px)
    latents = random_latents(3, 2, 3, channels=4)
    assert_close(encode_moments(module, video, chunk_frames=4), whole_encode(module, video))
    assert_close(decode_frames(module, latents, chunk_frames=4), whole_decode(module, latents))


def test_attention_is_the_only_step_that_looks_back_beyond_its_cache(module) -> None:
    for program in (from_module(module).encoder, from_module(module).decoder):
        looking = [step for step in program.steps if isinstance(step.mix, Attend)]
        assert [step.mix.looks_back for step in looking] == [True]
        assert not program.has_statistics


def test_files_by_either_names_are_read(tmp_path: Path) -> None:
    module = random_hunyuan_1_5(latent_channels=4, blocks=2)
    module.save_pretrained(tmp_path / "vae")
    named = authors_state(module)
    assert "decoder.mid.attn_1.q.weight" in named
    assert "encoder.down.3.downsample.conv.conv.weight" in named
    save_file(named, tmp_path / "a.safetensors")
    torch.save({f"vae.{name}": value for name, value in named.items()}, tmp_path / "b.pt")
    save_file(
        {f"first_stage_model.{name}": value for name, value in named.items()},
        tmp_path / "c.safetensors",
    )
    save_file(dict(module.state_dict()), tmp_path / "d.safetensors")
    latents = latents_of(5, 16, 32)
    whole = whole_decode(module, latents)
    for name in ("vae", "a.safetensors", "b.pt", "c.safetensors", "d.safetensors"):
        vae = vae_core.load(tmp_path / name)
        facts = vae.architecture
        assert (vae.family.name, vae.ratios.px, vae.latent_channels) == ("hunyuan15", 16, 4)
        assert facts.block_out_channels == (8, 16, 16, 16, 16)
        assert (facts.layers_per_block, facts.spatial_compression_ratio) == (2, 16)
        assert facts.temporal_compression_ratio == 4
        assert_close(vae.decode(latents), whole)
    assert vae_core.load(tmp_path / "vae").scaling_factor == 1.03682


@pytest.mark.parametrize("numbers", WIDER.values(), ids=WIDER)
def test_width_depth_and_ratios_are_read_off_the_shapes(numbers, tmp_path: Path) -> None:
    module = random_hunyuan_1_5(**numbers)
    save_file(authors_state(module), tmp_path / "a.safetensors")
    vae = vae_core.load(tmp_path / "a.safetensors")
    weights, wanted = vae.module.state_dict(), module.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())
    assert vae.architecture.spatial_compression_ratio == vae.ratios.px


def test_the_weights_that_no_video_goes_through_are_left_out(tmp_path: Path) -> None:
    """ComfyUI's class has them, and so has what is saved from it."""
    module = random_hunyuan_1_5()
    idle = {"encoder.mid.block_1.temb_proj.weight": torch.zeros(16, 512)}
    save_file(authors_state(module) | idle, tmp_path / "a.safetensors")
    latents = latents_of(1, 16, 16)
    assert_close(
        vae_core.load(tmp_path / "a.safetensors").decode(latents), whole_decode(module, latents)
    )


def test_a_part_of_a_file_is_refused_by_name(tmp_path: Path) -> None:
    named = authors_state(random_hunyuan_1_5())
    kept = {name: value for name, value in named.items() if not name.startswith("encoder.")}
    save_file(kept, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=r"this HunyuanVideo 1\.5 VAE is incomplete"):
        vae_core.load(tmp_path / "a.safetensors")
    middle = {name: value for name, value in named.items() if "coder.mid." not in name}
    save_file(middle, tmp_path / "b.safetensors")
    with pytest.raises(LoadError, match=r"HunyuanVideo 1\.5 VAE without its decoder's middle"):
        vae_core.load(tmp_path / "b.safetensors")


def test_another_model_s_latents_are_refused_by_their_channels(module) -> None:
    with pytest.raises(InputError, match=r"h/16, w/16\] needs 4 channels.*got 16"):
        from_module(module).decode(torch.zeros(1, 16, 2, 2, 2))


def test_no_small_one_ships() -> None:
    with pytest.raises(SettingsError, match=r"no VAE of HunyuanVideo 1\.5 ships"):
        vae_path(None, "hunyuan15")
