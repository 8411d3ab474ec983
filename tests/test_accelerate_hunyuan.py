"""Do diffusers' HunyuanVideo VAEs, 1.5's and 1.0's, stay themselves with the engine in them?"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, relative_error
from networks import random_latents, random_video
from networks_hunyuan import clip_decode, clip_encode, random_hunyuan, random_hunyuan_1_5
from signatures import shown

from vae_core import InputError, Settings
from vae_core.accelerate import accelerate, restore


@pytest.fixture(params=[random_hunyuan_1_5, random_hunyuan], ids=["1.5", "1.0"])
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    return request.param()


@torch.no_grad()
def every_door(module, frames: int) -> dict[str, torch.Tensor]:
    """What each of a module's doors gives, by its name."""
    video, latents = random_video(frames, 32, 48), random_latents(2, 2, 3, channels=4)
    return {
        "encode": module.encode(video).latent_dist.parameters,
        "_encode": module._encode(video),
        "tiled_encode": module.tiled_encode(video),
        "decode": module.decode(latents).sample,
        "_decode": module._decode(latents),
        "tiled_decode": module.tiled_decode(latents),
        "forward": module(video).sample,
    }


def tensor_of(result) -> torch.Tensor:
    """Of some doors the class of 1.0 gives more than a tensor."""
    return result if isinstance(result, torch.Tensor) else result.sample


@pytest.mark.parametrize("frames", [1, 9])
def test_every_door_gives_what_the_class_gives(module, frames) -> None:
    expected = every_door(module, frames)
    found = every_door(accelerate(module), frames)
    for name, result in expected.items():
        assert type(found[name]) is type(result)
        assert_close(tensor_of(found[name]), tensor_of(result))
    restored = every_door(restore(module), frames)
    assert torch.equal(restored["decode"], expected["decode"])


def test_signatures_and_return_types_are_the_classs_own(module) -> None:
    clip = random_video(1, 32, 32), random_latents(1, 2, 2, channels=4)
    expected = shown(module, *clip)
    assert shown(accelerate(module), *clip) == expected


def test_frames_that_break_the_class_are_refused_or_fitted(module) -> None:
    accelerate(module)
    with pytest.raises(InputError, match="4k"):
        module.encode(random_video(7, 32, 32))
    accelerate(module, Settings())
    assert module.encode(random_video(7, 32, 32)).latent_dist.mean.shape[2] == 3


def test_slicing_and_tiling_change_speed_and_memory_alone(module, caplog) -> None:
    video = random_video(5, 64, 48, batch=2)
    with torch.no_grad():
        clips = [module.encode(clip).latent_dist.mode() for clip in video.split(1)]
        pictures = [module.decode(clip).sample for clip in clips]
    accelerate(module)
    module.enable_slicing()
    module.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=32)
    found = module.encode(video).latent_dist.mode()
    assert_close(found, torch.cat(clips))
    assert_close(module.decode(found).sample, torch.cat(pictures))
    assert "exact tiles of at most 32x32 px" in caplog.text


def test_what_the_class_blends_in_time_goes_through_whole() -> None:
    """Of more than 16 frames 1.0's class blends runs by itself, without `enable_tiling`."""
    module, video = random_hunyuan(), random_video(21, 24, 40)
    latents = random_latents(6, 3, 5, channels=4)
    with torch.no_grad():
        blended = module.decode(latents).sample
    accelerate(module)
    moments, pictures = module.encode(video).latent_dist.parameters, module.decode(latents).sample
    assert_close(moments, clip_encode(module, video))
    assert_close(pictures, clip_decode(module, latents))
    assert relative_error(blended, pictures) > 0.01
