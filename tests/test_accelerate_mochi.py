"""Does diffusers' Mochi VAE, and a pipeline with it, stay itself with the engine in it?"""

from __future__ import annotations

import pytest
import torch
from contract import assert_close, relative_error
from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline, MochiTransformer3DModel
from networks import random_latents, random_video
from networks_mochi import random_mochi, whole_decode
from signatures import shown

from vae_core import InputError, Settings
from vae_core.accelerate import accelerate, restore
from vae_core.errors import LoweringError


@pytest.fixture
def module() -> torch.nn.Module:
    return random_mochi()


@torch.no_grad()
def every_door(module, frames: int) -> dict[str, torch.Tensor]:
    """What each of a module's doors gives, by its name."""
    video, latents = random_video(frames, 16, 24), random_latents(2, 2, 3, channels=4)
    return {
        "encode": module.encode(video).latent_dist.parameters,
        "_encode": module._encode(video),
        "tiled_encode": module.tiled_encode(video),
        "decode": module.decode(latents).sample,
        "_decode": module._decode(latents).sample,
        "tiled_decode": module.tiled_decode(latents).sample,
        "forward": module(video).sample,
    }


@pytest.mark.parametrize("frames", [1, 7, 9])
def test_every_door_gives_what_the_class_gives(module, frames) -> None:
    """Of 9 frames it leaves out the last two."""
    expected = every_door(module, frames)
    found = every_door(accelerate(module), frames)
    for name, tensor in expected.items():
        assert_close(found[name], tensor)
    restored = every_door(restore(module), frames)
    assert torch.equal(restored["decode"], expected["decode"])


def test_signatures_and_return_types_are_the_classs_own(module) -> None:
    clip = random_video(1, 16, 16), random_latents(1, 2, 2, channels=4)
    expected = shown(module, *clip)
    assert shown(accelerate(module), *clip) == expected


def test_frames_are_left_out_as_the_class_does_or_fitted(module) -> None:
    accelerate(module)
    assert module.encode(random_video(12, 16, 16)).latent_dist.mean.shape[2] == 2
    accelerate(module, Settings())
    assert module.encode(random_video(12, 16, 16)).latent_dist.mean.shape[2] == 3


def test_slicing_and_tiling_change_speed_and_memory_alone(module, caplog) -> None:
    video = random_video(7, 64, 48, batch=2)
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


def test_what_is_switched_over_later_is_refused(module) -> None:
    accelerate(module)
    module._enable_framewise_decoding()
    with pytest.raises(LoweringError, match="use_framewise_decoding = True"):
        module.decode(random_latents(2, 2, 3, channels=4))


def test_the_authors_first_frames_are_had_where_they_are_asked_for(module) -> None:
    latents = random_latents(3, 2, 3, channels=4)
    expected, theirs = whole_decode(module, latents), module.decode(latents).sample
    assert relative_error(theirs, expected) > 1e-3
    accelerate(module, Settings(reference="core"))
    assert_close(module.decode(latents).sample, expected)


def test_gradients_are_refused(module) -> None:
    accelerate(module)
    with pytest.raises(InputError, match="gives no gradients"):
        module.decode(random_latents(1, 2, 2, channels=4).requires_grad_())


def pipeline(vae) -> MochiPipeline:
    """diffusers' own, with a transformer of no use."""
    pytest.importorskip("transformers", reason="a pipeline needs it")
    torch.manual_seed(0)
    transformer = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        pooled_projection_dim=16,
        in_channels=4,
        text_embed_dim=8,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    scheduler = FlowMatchEulerDiscreteScheduler()
    return MochiPipeline(scheduler, vae, None, None, transformer.eval())


def video_of(pipe: MochiPipeline) -> torch.Tensor:
    """What it makes of the same noise."""
    words, mask = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1)), torch.ones(1, 4)
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        height=32,
        width=48,
        num_frames=13,
        num_inference_steps=2,
        guidance_scale=1.0,
        prompt_embeds=words,
        prompt_attention_mask=mask.bool(),
        generator=torch.Generator().manual_seed(2),
        output_type="pt",
    )
    return made.frames


def test_a_pipeline_gives_the_frames_that_it_gave(module) -> None:
    pipe = pipeline(module)
    expected = video_of(pipe)
    assert expected.shape == (1, 13, 3, 32, 48)
    assert accelerate(pipe, Settings(layout="diffusers", tile_px=16, placement="host")) is pipe
    assert_close(video_of(pipe), expected)
