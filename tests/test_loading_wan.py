"""Does every file of a Wan 2.1 VAE give the same weights, and every other a sentence?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from networks import random_video
from safetensors.torch import save_file
from wan_files import State, authors_state, wan_module

import vae_core
from vae_core.errors import LoadError
from vae_core.families.loading import LoadedModule, architecture_of_state, load_module

STEM = "diffusion_pytorch_model"
BESIDE = {
    "model.diffusion_model.blocks.0.ffn.0.weight": torch.zeros(2, 2),
    "text_encoder.shared.weight": torch.zeros(3),
}


@pytest.fixture(scope="module")
def module():
    return wan_module()


def written(path: Path, state: Mapping[str, torch.Tensor]) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


def folder(path: Path, state: State, config: Mapping[str, Any]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(dict(config)))
    written(path / f"{STEM}.safetensors", state)
    return path


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def holds(loaded: LoadedModule, module: torch.nn.Module) -> bool:
    weights, wanted = loaded.module.state_dict(), module.state_dict()
    same = all(torch.equal(weights[name], tensor) for name, tensor in wanted.items())
    return weights.keys() == wanted.keys() and same


SINGLE = {
    "core's names": authors_state,
    "diffusers' names": lambda module: module.state_dict(),
    "core's in a whole checkpoint": lambda m: under("vae.", authors_state(m)) | BESIDE,
    "core's as the first stage": lambda m: under("first_stage_model.", authors_state(m)) | BESIDE,
    "diffusers' in a whole checkpoint": lambda m: under("vae.", m.state_dict()) | BESIDE,
    "core's under a class's attribute": lambda m: under("model.", authors_state(m)),
}


@pytest.mark.parametrize("state_of", SINGLE.values(), ids=SINGLE)
def test_every_single_file_gives_the_same_weights(state_of, tmp_path: Path, module):
    loaded = load_module(written(tmp_path / "wan_2.1_vae.safetensors", state_of(module)))
    assert holds(loaded, module)
    assert not any(p.requires_grad for p in loaded.module.parameters())
    assert loaded.architecture.family == "wan"
    assert (loaded.scaling_factor, loaded.latent_statistics) == (None, None)


def test_the_authors_checkpoint_gives_the_same_weights(tmp_path: Path, module):
    torch.save(authors_state(module), tmp_path / "Wan2.1_VAE.pth")
    assert holds(load_module(tmp_path / "Wan2.1_VAE.pth"), module)


@pytest.mark.parametrize("kind", ["AutoencoderKLWan", "AutoencoderKLQwenImage"])
def test_a_folder_gives_its_class_and_the_mean_and_deviation_of_each_channel(
    kind: str, tmp_path: Path, module
):
    network = getattr(diffusers, kind)
    live = network(base_dim=8, num_res_blocks=1)
    live.load_state_dict(module.state_dict())
    live.save_pretrained(tmp_path / "vae")
    loaded = load_module(tmp_path)  # the pipeline's root
    assert holds(loaded, module)
    assert type(loaded.module) is network
    assert loaded.latent_statistics is not None
    assert list(loaded.latent_statistics.mean) == live.config.latents_mean
    assert list(loaded.latent_statistics.std) == live.config.latents_std
    assert vae_core.from_module(live).latent_statistics == loaded.latent_statistics


SHAPES: dict[str, dict[str, Any]] = {
    "the published width and depth": {"base_dim": 96, "num_res_blocks": 2},
    "RGBA at both ends": {"base_dim": 8, "in_channels": 4, "out_channels": 4},
    "RGBA at one end": {"base_dim": 8, "out_channels": 4},
    "three levels": {"base_dim": 8, "dim_mult": [1, 2, 2], "temperal_downsample": [True, True]},
    "a wider first level": {"base_dim": 8, "dim_mult": [2, 2, 4, 4]},
    "a narrower decoder": {"base_dim": 16, "decoder_base_dim": 8},
    "another latent": {"base_dim": 8, "z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0]},
    "three blocks in a level": {"base_dim": 8, "num_res_blocks": 3},
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_width_depth_and_channels_are_read_off_the_shapes(config: dict[str, Any]):
    with torch.device("meta"):
        module = diffusers.AutoencoderKLWan(**config)
    found = architecture_of_state(authors_state(module))
    assert found == architecture_of_state(module.state_dict())
    full = module.config
    assert found.block_out_channels == tuple(full.base_dim * mult for mult in full.dim_mult)
    assert (found.layers_per_block, found.latent_channels) == (full.num_res_blocks, full.z_dim)
    assert (found.in_channels, found.out_channels) == (full.in_channels, full.out_channels)
    assert found.spatial_compression_ratio == 2 ** (len(full.dim_mult) - 1)
    assert found.temporal_compression_ratio == 4
    assert found.norm_num_groups is None
    assert found.parameters == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_file_in_any_dtype_encodes_as_its_module_in_float32(dtype: torch.dtype, tmp_path: Path):
    module = wan_module(in_channels=4, out_channels=4).to(dtype)
    vae = vae_core.load(written(tmp_path / "v", authors_state(module)), dtype=torch.float32)
    assert vae.architecture.dtypes == (str(dtype).removeprefix("torch."),)
    video = torch.cat((random_video(5, 16, 24), torch.ones(1, 1, 5, 16, 24)), dim=1)
    with torch.inference_mode():
        expected = module.float()._encode(video)
    found = vae.encode(video).moments
    assert (found - expected).abs().max() <= 1e-4 * (expected.max() - expected.min())


def refusal(path: Path) -> str:
    with pytest.raises(LoadError) as caught:
        load_module(path)
    return str(caught.value)


def without(state: State, start: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(start)}


ONE_MORE = {"encoder.downsamples.7.residual.2.weight": torch.ones(32, 32, 3, 3, 3)}
WRONG = {
    "half": (lambda s: without(s, "encoder."), "incomplete: its encoder is missing"),
    "the other half": (lambda s: without(s, "decoder."), "a Wan 2.1 (or Qwen-Image) VAE without"),
    "one missing": (lambda s: without(s, "decoder.head.0"), "1 missing (decoder.norm_out.gamma)"),
    "one too many": (lambda s: s | {"encoder.x": torch.ones(1)}, "1 unexpected (encoder.x)"),
    "misshapen": (lambda s: s | {"conv1.bias": torch.ones(3)}, "(3,) instead of (32,)"),
    "uneven levels": (
        lambda s: s | ONE_MORE,
        "as many residual blocks",
    ),
    "odd widths": (
        lambda s: s | {"encoder.conv1.weight": torch.ones(7, 3, 3, 3, 3)},
        "multiple of",
    ),
    "two": (lambda s: s | under("ema.", s), "2 Wan 2.1 VAEs, under the prefixes ['', 'ema.']"),
    "Wan 2.2": (
        lambda s: s | {"decoder.upsamples.0.upsamples.0.residual.2.weight": torch.ones(1)},
        "this Wan 2.2 VAE is incomplete",
    ),
}


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_gets_a_sentence(change, words: str, tmp_path: Path, module):
    assert words in refusal(written(tmp_path / "v", change(authors_state(module))))


def test_a_config_of_2_1_beside_weights_of_2_2_is_told(tmp_path: Path):
    module = wan_module(is_residual=True, z_dim=48, patch_size=2, in_channels=12, out_channels=12)
    path = folder(tmp_path / "vae", module.state_dict(), {"_class_name": "AutoencoderKLWan"})
    assert "a Wan 2.1 VAE's, and the weights are a Wan 2.2 VAE's" in refusal(path)


CONFIGS = {
    "another width": ({"base_dim": 16}, "base_dim 16 against 8"),
    "another family": (
        {"_class_name": "AutoencoderKLCogVideoX"},
        "the weights are a Wan 2.1 VAE's",
    ),
    "too few means": ({"latents_mean": [0.5], "latents_std": [1.0]}, "for 1 channels"),
    "a mean alone": ({"latents_mean": [0.0] * 16}, "latents_mean or latents_std is wrong"),
    "no deviation": ({"latents_mean": [0.0] * 16, "latents_std": [0.0] * 16}, "above 0"),
    "words": ({"latents_mean": ["x"] * 16, "latents_std": [1.0] * 16}, "latents_mean or"),
}


@pytest.mark.parametrize(("values", "words"), CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_does_not_fit_is_refused(values, words: str, tmp_path: Path, module):
    config = {"_class_name": "AutoencoderKLWan"} | values
    assert words in refusal(folder(tmp_path / "vae", module.state_dict(), config))


def test_a_checkpoint_with_vaes_of_two_families_is_refused(tmp_path: Path, module):
    mark = "cog.decoder.mid_block.resnets.0.norm1.conv_y.conv.weight"
    state = under("wan.", authors_state(module)) | {mark: torch.ones(1)}
    assert "2 CogVideoX and Wan 2.1 VAEs" in refusal(written(tmp_path / "v", state))
