"""What is read of a VAE of HunyuanVideo 1.0, which files are, and what is refused?

That its results are the untiled network's is in `test_untiled`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames, encode_moments
from hunyuan_files import core_state
from networks import random_latents, random_video
from networks_hunyuan import clip_decode, clip_encode, random_hunyuan
from safetensors.torch import save_file

import vae_core
from vae_core import NormScope, Settings, from_module
from vae_core.cli import main
from vae_core.errors import InputError, LoadError, SettingsError
from vae_core.families.conventions import known_factor
from vae_core.jobs.options import vae_path
from vae_core.program.parts import Attend, Scope

WIDER = {
    "levels of other widths": {"widths": (8, 16, 32, 32), "blocks": 2},
    "three levels": {"widths": (8, 16, 16), "spatial_compression_ratio": 4},
}


@pytest.fixture(scope="module")
def module():
    return random_hunyuan()


def in_groups_of_32(module):
    """The module with as many groups as files without a config.json have."""
    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm):
            part.num_groups = 32
    return module


def of_core(**numbers):
    """A network whose file needs no config.json."""
    return in_groups_of_32(random_hunyuan(**{"widths": (32, 32, 64, 64), **numbers}))


@pytest.mark.parametrize("numbers", WIDER.values(), ids=WIDER)
def test_other_widths_depths_and_ratios_are_read_off_the_module(numbers) -> None:
    module = random_hunyuan(**numbers)
    config = module.config
    px, run = config.spatial_compression_ratio, config.temporal_compression_ratio
    vae = from_module(module)
    assert (vae.ratios.px, vae.ratios.frames) == (px, run)
    video = random_video(2 * run + 1, 2 * px, 3 * px)
    latents = random_latents(3, 2, 3, channels=4)
    settings = {"chunk_frames": 8, "tile_px": 16}
    assert_close(encode_moments(module, video, **settings), clip_encode(module, video))
    assert_close(decode_frames(module, latents, **settings), clip_decode(module, latents))


def test_statistics_are_the_clip_s_whatever_is_asked_for(module) -> None:
    vae = from_module(module)
    for program in (vae.encoder, vae.decoder):
        scopes = {step.norm.scope for step in program.steps if step.norm}
        assert scopes == {Scope.CLIP}
        assert [s.mix.looks_back for s in program.steps if isinstance(s.mix, Attend)] == [True]
    settings = Settings(chunk_frames=4, norm_scope="chunk", layout="diffusers")
    plan = vae.plan_decode((1, 4, 4, 3, 5), settings)
    assert plan.settings.norm_scope is NormScope.CLIP
    assert len(plan.chunks) == 1
    assert vae.decode(random_latents(4, 3, 5, channels=4), settings).shape[2] == 13


def test_a_later_frame_reaches_an_earlier_one_by_the_statistics_alone(module) -> None:
    """Halves of a clip are not what the clip is: a stream has to have all of it first."""
    latents = random_latents(4, 3, 5, channels=4)
    whole = decode_frames(module, latents)
    lone = decode_frames(module, latents[:, :, :2])
    assert not torch.allclose(whole[:, :, :5], lone, atol=1e-2)
    assert_close(lone, clip_decode(module, latents[:, :, :2]))


# Files


def test_a_diffusers_folder_is_read(tmp_path: Path, module) -> None:
    module.save_pretrained(tmp_path / "vae")
    latents = random_latents(2, 2, 3, channels=4)
    vae = vae_core.load(tmp_path / "vae")
    assert (vae.family.name, vae.ratios.px, vae.latent_channels) == ("hunyuan", 8, 4)
    assert vae.architecture.norm_num_groups == 4
    assert vae.scaling_factor == 0.476986
    assert_close(vae.decode(latents), clip_decode(module, latents))


def test_files_by_either_names_are_read(tmp_path: Path) -> None:
    module = of_core(blocks=2)
    named = core_state(module)
    assert named["decoder.mid.attn_1.q.weight"].ndim == 5
    assert "decoder.up.3.block.2.conv1.conv.weight" in named
    assert "encoder.down.0.downsample.conv.conv.weight" in named
    save_file(named, tmp_path / "hunyuan_video_vae_bf16.safetensors")
    torch.save({f"vae.{name}": value for name, value in named.items()}, tmp_path / "b.pt")
    save_file(
        {f"first_stage_model.{name}": value for name, value in named.items()},
        tmp_path / "c.safetensors",
    )
    save_file(dict(module.state_dict()), tmp_path / "d.safetensors")
    latents = random_latents(2, 2, 3, channels=4)
    whole = clip_decode(module, latents)
    for path in sorted(tmp_path.iterdir()):
        vae = vae_core.load(path)
        facts = vae.architecture
        assert (vae.family.name, vae.ratios.px, vae.latent_channels) == ("hunyuan", 8, 4)
        assert facts.block_out_channels == (32, 32, 64, 64)
        assert (facts.layers_per_block, facts.temporal_compression_ratio) == (2, 4)
        assert_close(vae.decode(latents), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_file_s_own_dtype_is_kept(tmp_path: Path, dtype) -> None:
    module = of_core().to(dtype)
    save_file(core_state(module), tmp_path / "a.safetensors")
    vae = vae_core.load(tmp_path / "a.safetensors")
    assert vae.dtype is dtype
    weights, wanted = vae.module.state_dict(), module.state_dict()
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], value) for name, value in wanted.items())


BROKEN = {
    "no encoder": (
        lambda name: name.startswith("encoder."),
        r"this HunyuanVideo VAE is incomplete",
    ),
    "no middle": (
        lambda name: "coder.mid." in name,
        r"this HunyuanVideo VAE, .* missing .*mid_block",
    ),
    "no ends": (lambda name: name.startswith("decoder.conv_in"), r"HunyuanVideo VAE .*conv_in"),
}


@pytest.mark.parametrize(("gone", "words"), BROKEN.values(), ids=BROKEN)
def test_a_part_of_a_file_is_refused_by_name(tmp_path: Path, gone, words) -> None:
    named = {name: value for name, value in core_state(of_core()).items() if not gone(name)}
    save_file(named, tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=words):
        vae_core.load(tmp_path / "a.safetensors")


def test_widths_that_no_groups_divide_are_refused(tmp_path: Path, module) -> None:
    save_file(core_state(module), tmp_path / "a.safetensors")
    with pytest.raises(LoadError, match=r"GroupNorm's 32 groups must divide .*\(8, 8, 16, 16\)"):
        vae_core.load(tmp_path / "a.safetensors")


# Latents


def test_another_model_s_latents_are_refused_by_their_channels(module) -> None:
    with pytest.raises(InputError, match=r"h/8, w/8\] needs 4 channels.*got 48"):
        from_module(module).decode(torch.zeros(1, 48, 2, 2, 2))


@pytest.mark.parametrize(
    "model", ["hunyuanvideo-community/HunyuanVideo", "HunyuanVideo-I2V", "hunyuan_video"]
)
def test_its_models_factor_is_known_by_their_names(model) -> None:
    assert known_factor(model) == 0.476986
    assert known_factor("hunyuanvideo-community/HunyuanVideo-1.5") == 1.03682


def test_no_small_one_ships() -> None:
    with pytest.raises(SettingsError, match=r"no VAE of HunyuanVideo ships"):
        vae_path(None, "hunyuan")


def test_the_command_line_tells_the_family_and_plans_it(tmp_path: Path, capsys) -> None:
    save_file(core_state(of_core()), tmp_path / "v.safetensors")
    assert main(["info", str(tmp_path / "v.safetensors"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["scaling_factor"]) == ("hunyuan", 0.476986)
