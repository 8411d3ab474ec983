"""Do diffusers' LTX VAEs stay themselves with the engine in them, told of noise or not?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contract import assert_close
from networks import random_latents, random_video
from networks_ltx import LATENTS, random_ltx2, random_ltx_090, random_ltx_095

from vae_core import InputError, LoweringError, from_module
from vae_core.accelerate import accelerate, restore

CLASSES: dict[str, Callable[[], torch.nn.Module]] = {
    "LTX-2": random_ltx2,
    "0.9.5": lambda: random_ltx_095(timestep_conditioning=True),
    "0.9.0": random_ltx_090,
}


@torch.no_grad()
def every_door(module: torch.nn.Module, temb: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What each of a module's doors gives, by its name."""
    video, latents = random_video(9, 64, 96), random_latents(2, 2, 3, channels=LATENTS)
    return {
        "encode": module.encode(video).latent_dist.parameters,
        "_encode": module._encode(video),
        "tiled_encode": module.tiled_encode(video),
        "decode": module.decode(latents, temb, return_dict=False)[0],
        "by name": module.decode(z=latents, temb=temb).sample,
        "_decode": module._decode(latents, temb).sample,
        "tiled_decode": module.tiled_decode(latents, temb, return_dict=False)[0],
    }


@pytest.mark.parametrize("name", CLASSES)
def test_every_door_gives_what_the_class_gives(name) -> None:
    module, temb = CLASSES[name](), torch.tensor([0.3]) if name == "0.9.5" else None
    expected = every_door(module, temb)
    found = every_door(accelerate(module), temb)
    for door, tensor in expected.items():
        assert_close(found[door], tensor)
    restored = every_door(restore(module), temb)
    assert torch.equal(restored["decode"], expected["decode"])


def test_clips_of_a_batch_are_told_the_same() -> None:
    module = accelerate(random_ltx_095(timestep_conditioning=True))
    latents = random_latents(1, 2, 2, channels=LATENTS, batch=2)
    module.decode(latents, torch.tensor([0.1, 0.1]))
    with pytest.raises(InputError, match="all clips of a batch the same timestep"):
        module.decode(latents, torch.tensor([0.1, 0.2]))


def test_a_decoder_that_looks_ahead_is_not_made_causal_by_a_call() -> None:
    module = accelerate(random_ltx2())
    latents = random_latents(1, 2, 2, channels=LATENTS)
    module.decode(latents, causal=False)
    with pytest.raises(InputError, match=r"this VAE's decoder looks ahead.*decoder_causal=True"):
        module.decode(latents, causal=True)
    accelerate(random_ltx2(decoder_causal=True)).decode(latents, causal=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_causal": False}, "downsamplers.0 shows its first frame twice and looks ahead"),
        ({"encoder_spatial_padding_mode": "reflect"}, "mirrors squares of elements"),
        ({"decoder_spatial_padding_mode": "circular"}, "pads by circular; the engine pads by"),
    ],
)
def test_what_the_engine_cannot_run_is_named(changes, words) -> None:
    with pytest.raises(LoweringError, match=words):
        from_module(random_ltx2(**changes))


def test_pictures_of_one_latent_are_refused_where_edges_are_mirrors() -> None:
    with pytest.raises(InputError, match="at least 2 elements"):
        from_module(random_ltx2()).decode(random_latents(2, 1, 3, channels=LATENTS))
    zeros = random_ltx2(decoder_spatial_padding_mode="zeros")
    assert from_module(zeros).decode(random_latents(2, 1, 3, channels=LATENTS)).shape[3] == 32
