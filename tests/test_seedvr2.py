"""Does the engine give what SeedVR2's network gives over the whole clip, for every cut and file?

The reference is the network in plain words (`networks_seedvr2`); ComfyUI's own class is one in the
host tier.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from contract import assert_close, decode_frames
from networks import random_latents
from networks_seedvr2 import narrow_seedvr2, random_seedvr2, unsettled, whole_decode
from safetensors.torch import save_file

import vae_core
from vae_core import from_module
from vae_core.cli import main
from vae_core.errors import InputError, LoadError, LoweringError, SettingsError
from vae_core.families.loading import architecture_of_state
from vae_core.families.seedvr2_network import SeedVR2VAE
from vae_core.jobs.options import vae_path
from vae_core.program.parts import Scope


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, batch: int = 1):
    count = (frames - 1) // 4 + 1
    return random_latents(count, height // 8, width // 8, dtype, batch=batch)


@pytest.fixture(scope="module")
def module() -> SeedVR2VAE:
    return random_seedvr2()


def test_a_frame_s_far_corner_reaches_all_of_it_by_its_statistics(module) -> None:
    """And no earlier frame: tiles that are normalised each by itself would not do."""
    latents = latents_of(5, 128, 128)
    changed = latents.clone()
    changed[:, :, 1, -1, -1] += 3.0
    moved = (decode_frames(module, changed) - decode_frames(module, latents)).abs()
    assert float(moved[:, :, 4, :8, :8].amax()) > 0
    assert float(moved[:, :, 0].amax()) == 0


# Which modules and files


def test_every_norm_has_the_scope_of_a_frame(module) -> None:
    vae = from_module(module)
    for program in (vae.encoder, vae.decoder):
        norms = [step.norm for step in program.steps if step.norm]
        assert {norm.scope for norm in norms} == {Scope.FRAME}
        assert program.measures
        assert not program.has_statistics


REFUSED = {
    "another part": (
        lambda m: setattr(m.decoder.up_blocks[0].resnets[0], "conv1", torch.nn.Identity()),
        "must be a convolution",
    ),
    "one more": (lambda m: setattr(m.decoder.mid_block, "extra", torch.nn.SiLU()), "extra"),
    "strides": (lambda m: setattr(m.encoder.conv_in, "stride", (1, 2, 2)), "keep the size"),
    "padding": (lambda m: setattr(m.encoder.conv_in, "padding", (1, 1, 1)), "up to its own"),
    "channels": (
        lambda m: setattr(
            m.decoder.up_blocks[0].upsamplers[0], "upscale_conv", torch.nn.Conv3d(64, 1024, 1)
        ),
        "one or two frames",
    ),
}


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_what_the_engine_cannot_run_is_refused_with_its_path(change, words) -> None:
    module = random_seedvr2()
    change(module)
    with pytest.raises(LoweringError, match=rf"(encoder|decoder)\..*{words}"):
        from_module(module)


def written(path: Path, state) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def test_files_by_the_authors_names_are_read(tmp_path: Path) -> None:
    module = unsettled(narrow_seedvr2(latent_channels=16, layers=2))
    state = module.state_dict()
    assert "decoder.up_blocks.2.upsamplers.0.upscale_conv.weight" in state
    beside = {"model.diffusion_model.blocks.0.attn.weight": torch.ones(2, 2)}
    prefixed = {f"first_stage_model.{name}": value for name, value in state.items()} | beside
    paths = (
        written(tmp_path / "seedvr2_ema_vae_fp16.safetensors", state),
        written(tmp_path / "whole.safetensors", prefixed),
        tmp_path / "ema_vae.pth",
    )
    torch.save(state, paths[2])
    latents = random_latents(2, 2, 3, channels=16)
    whole = whole_decode(module, latents)
    for path in paths:
        vae = vae_core.load(path)
        facts = vae.architecture
        assert (vae.family.name, vae.ratios.px, vae.ratios.frames) == ("seedvr2", 8, 4)
        assert (facts.block_out_channels, facts.layers_per_block) == ((32, 32, 64, 64), 2)
        assert (facts.latent_channels, facts.norm_num_groups) == (16, 32)
        assert_close(vae.decode(latents), whole)


def test_the_published_network_is_what_its_class_makes() -> None:
    with torch.device("meta"):
        module = SeedVR2VAE()
    found = architecture_of_state(module.state_dict())
    assert found.block_out_channels == (128, 256, 512, 512)
    assert (found.latent_channels, found.spatial_compression_ratio) == (16, 8)
    assert found.temporal_compression_ratio == 4
    assert found.parameters == sum(p.numel() for p in module.parameters())


NARROW_CONV = {"encoder.down_blocks.0.resnets.0.conv1.weight": torch.ones(8, 8, 3, 3, 3)}
WRONG = {
    "half": (lambda s: {k: v for k, v in s.items() if "enc" not in k}, "its encoder is missing"),
    "the other half": (
        lambda s: {k: v for k, v in s.items() if "dec" not in k},
        "half of a SeedVR2 VAE",
    ),
    "one too many": (lambda s: s | {"encoder.x": torch.ones(1)}, r"1 unexpected \(encoder.x\)"),
    "misshapen": (lambda s: s | {"decoder.conv_in.bias": torch.ones(3)}, r"\(3,\) instead of"),
    "too narrow": (lambda s: s | NARROW_CONV, "multiples of 32"),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_gets_a_sentence(change, words, tmp_path: Path, module) -> None:
    with pytest.raises(LoadError, match=words):
        vae_core.load(written(tmp_path / "v.safetensors", change(module.state_dict())))


def test_latents_of_another_model_are_refused_by_their_channels(module) -> None:
    with pytest.raises(InputError, match=r"h/8, w/8\] needs 4 channels.*got 48"):
        from_module(module).decode(torch.zeros(1, 48, 2, 2, 2))


# The command line


def test_the_factor_of_its_models_is_known(module, tmp_path: Path, capsys) -> None:
    path = written(tmp_path / "v.safetensors", module.state_dict())
    assert from_module(module).scaling_factor == 0.9152
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["scaling_factor"]) == ("seedvr2", 0.9152)
    assert main(["info", str(path)]) == 0
    assert "None" not in capsys.readouterr().out


def test_no_small_one_ships() -> None:
    with pytest.raises(SettingsError, match=r"no VAE of SeedVR2 ships"):
        vae_path(None, "seedvr2")
