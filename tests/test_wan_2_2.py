"""Does the engine give the pixels of diffusers' untiled Wan 2.2, for every cut and every file?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract import assert_close
from networks import random_latents
from networks_wan import random_wan_2_2, whole_decode
from safetensors.torch import save_file

import vae_core
from vae_core import from_module
from vae_core.errors import InputError, SettingsError
from vae_core.families.latent_statistics import LATENT_STATISTICS
from vae_core.jobs.options import vae_path

ENDS = {
    "encoder.conv_in.": "encoder.conv1.",
    "encoder.norm_out.": "encoder.head.0.",
    "encoder.conv_out.": "encoder.head.2.",
    "decoder.conv_in.": "decoder.conv1.",
    "decoder.norm_out.": "decoder.head.0.",
    "decoder.conv_out.": "decoder.head.2.",
    "post_quant_conv.": "conv2.",
    "quant_conv.": "conv1.",
}
PARTS = {
    ".mid_block.resnets.0.": ".middle.0.",
    ".mid_block.attentions.0.": ".middle.1.",
    ".mid_block.resnets.1.": ".middle.2.",
    ".norm1.": ".residual.0.",
    ".conv1.": ".residual.2.",
    ".norm2.": ".residual.3.",
    ".conv2.": ".residual.6.",
    ".conv_shortcut.": ".shortcut.",
}


def latents_of(frames: int, height: int, width: int, dtype=torch.float32, channels: int = 6):
    count = (frames - 1) // 4 + 1
    return random_latents(count, height // 16, width // 16, dtype, channels=channels)


@pytest.fixture(scope="module")
def module():
    return random_wan_2_2()


def authors_name(name: str, blocks: int) -> str:
    """The name that the authors have for one of diffusers' names."""
    for ours, theirs in ENDS.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    for way, parts in (("down", blocks), ("up", blocks + 1)):
        if f".{way}_blocks." in name:
            name = name.replace(f".{way}_blocks.", f".{way}samples.")
            name = name.replace(f".{way}sampler.", f".{way}samples.{parts}.")
            name = name.replace(".resnets.", f".{way}samples.")
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return name


def test_files_by_either_names_are_read(tmp_path: Path) -> None:
    module = random_wan_2_2(latent_channels=48, blocks=2)
    module.save_pretrained(tmp_path / "vae")
    state = {name: value.contiguous() for name, value in module.state_dict().items()}
    named = {authors_name(name, 2): value for name, value in state.items()}
    assert "decoder.upsamples.0.upsamples.0.residual.2.weight" in named
    assert "decoder.upsamples.1.upsamples.3.time_conv.weight" in named
    save_file(named, tmp_path / "a.safetensors")
    torch.save({f"vae.{name}": value for name, value in named.items()}, tmp_path / "b.pt")
    latents = latents_of(5, 16, 32, channels=48)
    whole = whole_decode(module, latents)
    for path in (tmp_path / "vae", tmp_path / "a.safetensors", tmp_path / "b.pt"):
        vae = vae_core.load(path)
        facts = vae.architecture
        assert (vae.family.name, vae.ratios.px, vae.latent_channels) == ("wan22", 16, 48)
        assert (facts.in_channels, facts.spatial_compression_ratio) == (3, 16)
        assert_close(vae.decode(latents), whole)


def test_the_model_s_statistics_are_known_by_its_name() -> None:
    found = LATENT_STATISTICS["wan2.2-5b"]
    latents = latents_of(5, 16, 16, channels=48)
    assert len(found.mean) == 48
    assert_close(found.undone(found.normalised(latents)), latents)


def test_another_model_s_latents_are_refused_by_their_channels(module) -> None:
    with pytest.raises(InputError, match=r"h/16, w/16\] needs 6 channels.*got 16"):
        from_module(module).decode(torch.zeros(1, 16, 2, 2, 2))


def test_no_small_one_ships() -> None:
    with pytest.raises(SettingsError, match=r"no VAE of Wan 2\.2 5B ships"):
        vae_path(None, "wan22")
