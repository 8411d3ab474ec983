"""Do diffusers' Wan and Qwen-Image VAEs, and pipelines that hold them, stay themselves with the
engine in them?
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types

import pytest
import torch
from contract import assert_close
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from diffusers import QwenImageTransformer2DModel as QwenImageTransformer
from networks import random_latents, random_video
from networks_wan import random_qwen_image, random_wan
from PIL import Image
from signatures import shown

from vae_core import InputError, Settings
from vae_core.accelerate import accelerate, restore

CLASSES = {"wan": random_wan, "qwen image": random_qwen_image}
TOKENS, TEXT = 6, 16


@pytest.fixture(params=CLASSES)
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    return CLASSES[request.param]()


@pytest.fixture
def wan() -> torch.nn.Module:
    return random_wan()


def latents_of(count: int, batch: int = 1) -> torch.Tensor:
    """Latents whose frames leave [-1, 1] in places, so that a clamp shows."""
    return 3 * random_latents(count, 2, 3, batch=batch, channels=16)


@torch.no_grad()
def every_door(module, frames: int) -> dict[str, torch.Tensor]:
    """What each of a module's doors gives, by its name."""
    video, latents = random_video(frames, 16, 24), latents_of(2)
    return {
        "encode": module.encode(video).latent_dist.parameters,
        "_encode": module._encode(video),
        "tiled_encode": module.tiled_encode(video),
        "decode": module.decode(latents).sample,
        "_decode": module._decode(latents).sample,
        "tiled_decode": module.tiled_decode(latents).sample,
    }


@pytest.mark.parametrize("frames", [1, 5, 7])
def test_every_door_gives_what_the_class_gives(module, frames) -> None:
    """Seven frames are no 4k+1: the class leaves out the last two. One class forgets its clamp in
    `tiled_decode`; the untiled result has it.
    """
    expected = every_door(module, frames)
    expected["tiled_decode"].clamp_(-1, 1)
    assert expected["decode"].abs().max() == 1, "the class clamps something here"
    found = every_door(accelerate(module), frames)
    for name, tensor in expected.items():
        assert_close(found[name], tensor)
    restored = every_door(restore(module), 1)
    assert torch.equal(restored["decode"], expected["decode"])


def test_what_is_left_out_of_a_clip_is_said_once(wan, caplog) -> None:
    accelerate(wan)
    for _ in range(2):
        assert wan.encode(random_video(7, 16, 16)).latent_dist.mean.shape[2] == 2
    assert caplog.text.count("Frames cropped from 7 to 5.") == 1
    accelerate(wan, Settings())
    assert wan.encode(random_video(7, 16, 16)).latent_dist.mean.shape[2] == 3
    accelerate(wan, Settings(frame_fit="error"))
    with pytest.raises(InputError, match="4k"):
        wan.encode(random_video(7, 16, 16))


def test_signatures_and_return_types_are_the_classs_own(module) -> None:
    clip = random_video(1, 16, 24), latents_of(1)
    expected = shown(module, *clip)
    assert shown(accelerate(module), *clip) == expected


def test_slicing_and_tiling_change_speed_and_memory_alone(wan, caplog) -> None:
    video = random_video(5, 64, 48, batch=2)
    with torch.no_grad():
        expected = wan.encode(video).latent_dist.mode()
        frames = wan.decode(expected).sample
    paths: list[str] = []
    settings = Settings(layout="diffusers", on_progress=lambda p: paths.append(p.path))
    accelerate(wan, settings).encode(video)
    plain = len(paths)
    wan.enable_slicing()
    wan.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=24)
    assert_close(wan.encode(video).latent_dist.mode(), expected)
    assert len(paths) > 5 * plain
    assert_close(wan.decode(expected).sample, frames)
    assert "exact tiles of at most 32x24 px" in caplog.text


def test_forward_goes_through_the_engine_both_ways(module) -> None:
    video, paths = random_video(5, 16, 24), []
    with torch.no_grad():
        plain = module(video).sample
    accelerate(module, Settings(layout="diffusers", on_progress=lambda p: paths.append(p.path)))
    assert_close(module(video).sample, plain)
    assert {path.split(".")[0] for path in paths} >= {"encoder", "decoder"}


@pytest.fixture(name="without_transformers", scope="module")
def pipelines_that_import():
    """Where transformers is missing, a stand-in: pipelines annotate with its names alone, and run
    on embeddings.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("transformers", "regex"):
            if importlib.util.find_spec(name) is None:
                stub = types.ModuleType(name)
                stub.__getattr__ = lambda attribute: type(attribute, (), {})
                patch.setitem(sys.modules, name, stub)
        from diffusers import loaders
        from diffusers.loaders import lora_pipeline

        for name in ("WanLoraLoaderMixin", "QwenImageLoraLoaderMixin"):
            patch.setattr(loaders, name, getattr(lora_pipeline, name), raising=False)
        yield


def pipeline_class(path: str) -> type:
    """A class of `diffusers.pipelines` by its module and name."""
    file, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"diffusers.pipelines.{file}"), name)


def wan_transformer(channels: int) -> torch.nn.Module:
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        text_dim=TEXT,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
    ).eval()


def text_frames(vae) -> torch.Tensor:
    """What WanPipeline makes of embeddings."""
    kind = pipeline_class("wan.pipeline_wan.WanPipeline")
    pipeline = kind(None, None, vae, FlowMatchEulerDiscreteScheduler(), wan_transformer(16))
    return run_wan(pipeline)


def image_frames(vae) -> torch.Tensor:
    """What WanImageToVideoPipeline makes of embeddings and a picture."""
    kind = pipeline_class("wan.pipeline_wan_i2v.WanImageToVideoPipeline")
    pipeline = kind(
        None, None, vae, FlowMatchEulerDiscreteScheduler(), transformer=wan_transformer(36)
    )
    picture = (127.5 * random_video(1, 16, 32)[0, :, 0].movedim(0, -1) + 127.5).to(torch.uint8)
    return run_wan(pipeline, image=Image.fromarray(picture.numpy()))


def run_wan(pipeline, **inputs) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    text = torch.randn(2, 1, TOKENS, TEXT, generator=torch.Generator().manual_seed(2))
    return pipeline(
        **inputs,
        prompt_embeds=text[0],
        negative_prompt_embeds=text[1],
        num_frames=5,
        num_inference_steps=2,
        height=16,
        width=32,
        generator=torch.Generator().manual_seed(4),
        output_type="pt",
    ).frames


def pictures(vae) -> torch.Tensor:
    """What QwenImagePipeline makes of embeddings."""
    transformer = QwenImageTransformer(
        in_channels=64,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    kind = pipeline_class("qwenimage.pipeline_qwenimage.QwenImagePipeline")
    pipeline = kind(FlowMatchEulerDiscreteScheduler(), vae, None, None, transformer)
    pipeline.set_progress_bar_config(disable=True)
    text = torch.randn(1, TOKENS, TEXT, generator=torch.Generator().manual_seed(2))
    return pipeline(
        prompt_embeds=text,
        prompt_embeds_mask=torch.ones(1, TOKENS, dtype=torch.int64),
        num_inference_steps=2,
        height=32,
        width=48,
        generator=torch.Generator().manual_seed(4),
        output_type="pt",
    ).images


PIPELINES = {
    "text to video": (random_wan, text_frames),
    "image to video": (random_wan, image_frames),
    "picture": (random_qwen_image, pictures),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_gives_the_plain_pipelines_frames(without_transformers, name) -> None:
    make, run = PIPELINES[name]
    module, paths = make(), list[str]()
    torch.manual_seed(1)
    plain = run(module)
    accelerate(module, Settings(layout="diffusers", on_progress=lambda p: paths.append(p.path)))
    torch.manual_seed(1)
    assert_close(run(module), plain, 1e-3)
    assert any(path.startswith("decoder") for path in paths)
    assert any(path.startswith("encoder") for path in paths) == (name == "image to video")
