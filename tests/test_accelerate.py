"""Does a diffusers VAE, and every pipeline that holds it, stay itself once the engine is in it?"""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
import pickle
import sys
import types
import weakref

import pytest
import torch
from contract import assert_close
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from networks import random_latents, random_module, random_video
from PIL import Image
from signatures import shown

from vae_core import InputError, LoweringError, Settings
from vae_core.accelerate import accelerate, restore

SMALL_TILES = Settings(layout="diffusers", tile_px=16)
TOKENS, TEXT = 6, 8


@pytest.fixture(name="module")
def fresh_module() -> AutoencoderKLCogVideoX:
    return random_module()


def watched(**settings) -> tuple[Settings, list[str]]:
    """Settings, and the list of module paths that a run under them fills."""
    paths: list[str] = []
    usual = {"layout": "diffusers", "on_progress": lambda progress: paths.append(progress.path)}
    return Settings(**usual | settings), paths


@pytest.mark.parametrize("frames", [1, 5, 8, 9, 16, 17])
def test_encode_and_decode_give_what_the_class_gives(module, frames) -> None:
    video = random_video(frames, 40, 24)
    expected = module.encode(video).latent_dist
    latents = expected.mode()
    decoded = module.decode(latents).sample
    accelerate(module, SMALL_TILES)
    found = module.encode(video).latent_dist
    assert_close(found.parameters, expected.parameters)
    seeded = [dist.sample(torch.Generator().manual_seed(3)) for dist in (found, expected)]
    assert_close(*seeded)
    assert_close(module.decode(latents).sample, decoded)


def test_signatures_and_return_types_are_the_classs_own(module) -> None:
    clip = random_video(5, 16, 24), random_latents(2, 2, 3)
    expected = shown(module, *clip)
    assert shown(accelerate(module), *clip) == expected


@pytest.mark.parametrize("sampled", [False, True])
def test_forward_goes_through_the_engine_both_ways(module, sampled) -> None:
    video = random_video(9, 24, 32)
    plain = module(video, sample_posterior=sampled, generator=torch.Generator().manual_seed(1))
    settings, paths = watched(tile_px=16)
    accelerate(module, settings)
    found = module(video, sample_posterior=sampled, generator=torch.Generator().manual_seed(1))
    assert_close(found.sample, plain.sample)
    assert {path.split(".")[0] for path in paths} == {"encoder", "decoder"}
    assert torch.equal(module(video, return_dict=False)[0], module(video).sample)


def test_slicing_runs_the_clips_of_a_batch_one_by_one(module) -> None:
    video = random_video(5, 16, 24, batch=3)
    module.enable_slicing()
    expected = module.encode(video).latent_dist.mode()
    frames = module.decode(expected).sample
    module.disable_slicing()
    settings, paths = watched()
    accelerate(module, settings)
    whole = module.encode(video).latent_dist.mode()
    together = len(paths)
    module.enable_slicing()
    sliced = module.encode(video).latent_dist.mode()
    assert len(paths) - together == 3 * together
    assert_close(whole, expected)
    assert_close(sliced, expected)
    assert_close(module.decode(expected).sample, frames)


def test_dtype_and_weights_are_looked_up_at_each_call(module) -> None:
    video = random_video(5, 16, 24)
    single = accelerate(module).encode(video).latent_dist.mode()
    double = module.to(torch.float64).encode(video.double()).latent_dist.mode()
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_close(single, double, 1e-4)
    module.encoder.conv_in.conv.weight.mul_(-0.5)
    found = module.encode(video.double()).latent_dist.mode()
    assert_close(found, restore(module).encode(video.double()).latent_dist.mode())


def test_tiling_of_the_class_becomes_exact_tiles_and_says_so_once(module, caplog) -> None:
    video = random_video(5, 64, 48)
    whole = module.encode(video).latent_dist.mode()
    frames = module.decode(whole).sample
    settings, paths = watched(tile_px=None)
    accelerate(module, settings).encode(video)
    untiled = len(paths)
    module.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=24)
    assert_close(module.encode(video).latent_dist.mode(), whole)
    assert_close(module.decode(whole).sample, frames)
    assert len(paths) > 3 * untiled
    paths.clear()
    module.disable_tiling()
    module.encode(video)
    assert len(paths) == untiled, "the settings hold again"
    (record,) = caplog.records
    assert "exact tiles of at most 32x24 px" in record.getMessage()


@pytest.mark.parametrize(
    ("own", "tiling", "bounds"),
    [((16, 200), "exact", "16x24"), (None, "exact", "32x24"), (256, "off", "32x24")],
)
def test_the_smaller_of_both_tiles_holds(module, own, tiling, bounds, caplog) -> None:
    accelerate(module, Settings(tile_px=own, tiling=tiling))
    module.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=24)
    module.encode(random_video(1, 40, 48))
    assert f"at most {bounds} px" in caplog.text


def test_restore_leaves_no_trace_and_other_instances_are_never_touched(module) -> None:
    attributes, methods = set(vars(module)), dict(vars(AutoencoderKLCogVideoX))
    assert accelerate(module) is module
    assert dict(vars(AutoencoderKLCogVideoX)) == methods
    assert random_module().encode.__func__ is AutoencoderKLCogVideoX.encode
    assert restore(module) is module
    assert set(vars(module)) == attributes
    assert restore(module) is module, "a second time is harmless"


def test_accelerating_twice_replaces_the_settings_and_one_restore_undoes_it(module) -> None:
    (first, first_paths), (second, second_paths) = watched(), watched()
    accelerate(accelerate(module, first), second).encode(random_video(1, 16, 16))
    assert (bool(first_paths), bool(second_paths)) == (False, True)
    assert restore(module).encode.__func__ is AutoencoderKLCogVideoX.encode


def test_what_somebody_else_laid_over_the_class_comes_back(module) -> None:
    module.encode = own = types.MethodType(AutoencoderKLCogVideoX.encode, module)
    assert accelerate(accelerate(module)).encode is not own
    assert restore(module).encode is own
    assert "decode" not in vars(module)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copy_is_accelerated_over_its_own_weights(module, how) -> None:
    video = random_video(5, 16, 24)
    accelerate(module, SMALL_TILES)
    twin = copy.deepcopy(module) if how == "deepcopy" else pickle.loads(pickle.dumps(module))
    assert twin.encode.__self__.vae.module is twin
    expected = module.encode(video).latent_dist.mode()
    assert torch.equal(twin.encode(video).latent_dist.mode(), expected)
    with torch.no_grad():
        module.encoder.conv_in.conv.weight.zero_()
    assert torch.equal(twin.encode(video).latent_dist.mode(), expected)
    assert "encode" not in vars(restore(twin))
    assert "encode" in vars(module)


def test_what_is_saved_is_the_plain_vae(module, tmp_path) -> None:
    module.save_pretrained(tmp_path / "plain")
    accelerate(module).save_pretrained(tmp_path / "accelerated")
    plain, ours = (sorted((tmp_path / name).iterdir()) for name in ("plain", "accelerated"))
    assert [path.name for path in ours] == [path.name for path in plain]
    assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in plain]


def test_an_accelerated_vae_is_freed_when_nobody_holds_it() -> None:
    module = accelerate(random_module())
    module.decode(random_latents(1, 2, 2))
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None


def test_an_input_that_asks_for_gradients_is_refused(module) -> None:
    accelerate(module)
    video = random_video(1, 16, 16).requires_grad_()
    with pytest.raises(InputError, match="gives no gradients"):
        module.encode(video)
    with torch.no_grad():
        assert not module.encode(video).latent_dist.mean.requires_grad
    module.requires_grad_(True)
    assert not module.decode(random_latents(1, 2, 2)).sample.requires_grad


def test_wrong_sizes_are_refused_unless_settings_pad_them(module, caplog) -> None:
    accelerate(module)
    with pytest.raises(InputError, match="height must be a multiple of 8"):
        module.encode(random_video(1, 20, 16))
    with pytest.raises(InputError, match="five dimensions"):
        module.decode(torch.zeros(4, 1, 2, 2))
    accelerate(module, Settings())
    assert module.encode(random_video(4, 20, 16)).latent_dist.mean.shape[2:] == (2, 3, 2)
    assert "Frames padded by replication from 4 to 5." in caplog.text
    assert "Height padded by replication from 20 to 24." in caplog.text


@pytest.mark.parametrize(
    ("target", "named"),
    [(torch.nn.Linear(1, 1), "got Linear"), (types.SimpleNamespace(vae=None), "vae is NoneType")],
)
@pytest.mark.parametrize("call", [accelerate, restore])
def test_other_objects_are_refused_by_name(call, target, named) -> None:
    with pytest.raises(InputError, match=named):
        call(target)


def test_a_network_that_the_engine_cannot_run_is_refused_and_left_as_it_is(module) -> None:
    module.quant_conv = torch.nn.Conv3d(8, 8, 1)
    with pytest.raises(LoweringError, match="quant_conv"):
        accelerate(module)
    assert "encode" not in vars(module)


class Offload:
    """A hook as `accelerate` makes them: weights are elsewhere until pre_forward brings them."""

    def __init__(self, part: torch.nn.Module) -> None:
        self.weights = dict(part.named_parameters(recurse=False))
        self.calls: list[str] = []
        self.post_forward(part, None)
        self.calls.clear()

    def pre_forward(self, part, *args, **kwargs):
        self.calls.append("pre")
        for name, weight in self.weights.items():
            setattr(part, name, weight)
        return args, kwargs

    def post_forward(self, part, output):
        self.calls.append("post")
        for name, weight in self.weights.items():
            setattr(part, name, torch.nn.Parameter(weight.to("meta"), requires_grad=False))
        return output


def test_offloaded_parts_bring_their_weights_for_each_call_and_take_them_away(module) -> None:
    video, latents = random_video(5, 16, 24), random_latents(2, 2, 3)
    expected = module.encode(video).latent_dist.mode(), module.decode(latents).sample
    accelerate(module)
    parts = [part for part in module.modules() if list(part.parameters(recurse=False))]
    for part in [module, *parts]:
        part._hf_hook = Offload(part)
    assert_close(module.encode(video).latent_dist.mode(), expected[0])
    assert_close(module.decode(latents).sample, expected[1])
    assert module._hf_hook.calls == ["pre", "pre"], "the class calls no post_forward of its own"
    assert all(part._hf_hook.calls == ["pre", "post"] * 2 for part in parts)
    with pytest.raises(InputError):
        module.encode(torch.full((1, 3, 1, 16, 16), torch.nan))
    assert all(parameter.is_meta for parameter in module.parameters())


def test_weights_that_diffusers_offloads_or_stores_narrow_are_followed(module) -> None:
    latents, narrow = random_latents(2, 2, 3), copy.deepcopy(module)
    frames = module.decode(latents).sample
    module.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    assert_close(accelerate(module).decode(latents).sample, frames)
    narrow.enable_layerwise_casting(torch.bfloat16, torch.float32)
    frames = narrow.decode(latents).sample
    assert_close(accelerate(narrow).decode(latents).sample, frames)


def test_weights_on_a_disk_are_refused(module, tmp_path) -> None:
    accelerate(module)
    module.enable_group_offload(
        torch.device("cpu"), offload_type="leaf_level", offload_to_disk_path=str(tmp_path)
    )
    with pytest.raises(InputError, match="Leave out offload_to_disk_path"):
        module.decode(random_latents(1, 2, 2))


@pytest.fixture(name="pipelines", scope="module")
def pipeline_classes():
    """diffusers' three pipelines, by name; where transformers is missing, with names in its place.

    They import T5 to annotate and load it, and run on embeddings without it.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("transformers") is None:
            stub = types.ModuleType("transformers")
            stub.T5EncoderModel, stub.T5Tokenizer = type("T5", (), {}), type("T5", (), {})
            patch.setitem(sys.modules, "transformers", stub)
            from diffusers import loaders
            from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin as Mixin

            patch.setattr(loaders, "CogVideoXLoraLoaderMixin", Mixin, raising=False)
        yield {name: _pipeline_class(*CALLS[name][:2]) for name in CALLS}


def _pipeline_class(file: str, title: str) -> type:
    module = importlib.import_module(f"diffusers.pipelines.cogvideo.pipeline_cogvideox{file}")
    return getattr(module, f"CogVideoX{title}Pipeline")


def _pictures(frames: int) -> list[Image.Image]:
    video = random_video(frames, 16, 24)[0].movedim(0, -1)  # [t, h, w, c]
    return [Image.fromarray(frame.numpy()) for frame in (127.5 * video + 127.5).to(torch.uint8)]


# name: its file, its class, and what its call needs for n sample frames
CALLS = {
    "text": ("", "", lambda n: {"num_frames": n}),
    "image": ("_image2video", "ImageToVideo", lambda n: {"num_frames": n, "image": _pictures(1)}),
    "video": ("_video2video", "VideoToVideo", lambda n: {"video": _pictures(n), "strength": 0.6}),
}


def _pipeline(pipelines, name: str, module: AutoencoderKLCogVideoX):
    torch.manual_seed(1)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8 if name == "image" else 4,
        out_channels=4,
        text_embed_dim=TEXT,
        num_layers=1,
        patch_size=1,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=True,
    ).eval()
    pipeline = pipelines[name](None, None, module, transformer, CogVideoXDDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _frames(pipeline, name: str, frames: int) -> torch.Tensor:
    """[b, t, c, h, w] in [0, 1]."""
    text = torch.randn(2, 1, TOKENS, TEXT, generator=torch.Generator().manual_seed(2))
    return pipeline(
        **CALLS[name][2](frames),
        prompt_embeds=text[0],
        negative_prompt_embeds=text[1],
        num_inference_steps=3,
        height=16,
        width=24,
        max_sequence_length=TOKENS,
        generator=torch.Generator().manual_seed(4),
        output_type="pt",
    ).frames


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [(9, {"layout": "aligned"}), (13, {}), (16, {}), (17, {"tile_px": 16})],
    ids=["one aligned chunk", "even latent frames", "no 4k+1 frames", "two chunks"],
)
@pytest.mark.parametrize("name", CALLS)
def test_a_pipeline_gives_the_plain_pipelines_frames(
    pipelines, module, name, frames, chosen
) -> None:
    pipeline = _pipeline(pipelines, name, module)
    plain = _frames(pipeline, name, frames)
    settings, paths = watched(**chosen)
    assert accelerate(pipeline, settings) is pipeline
    assert_close(_frames(pipeline, name, frames), plain, 1e-3)
    parts = {"decoder"} if name == "text" else {"encoder", "decoder"}
    assert {path.split(".")[0] for path in paths} == parts
    assert_close(_frames(accelerate(pipeline), name, frames), plain, 1e-3)
    assert torch.equal(_frames(restore(pipeline), name, frames), plain)


def test_the_aligned_layout_decodes_even_latents_to_the_frames_asked_for(pipelines, module) -> None:
    pipeline = _pipeline(pipelines, "text", module)
    assert _frames(pipeline, "text", 13).shape[1] == 16
    assert _frames(accelerate(pipeline, Settings()), "text", 13).shape[1] == 13


@pytest.mark.cuda
def test_clips_in_host_memory_go_through_a_vae_on_the_device_and_come_back(module) -> None:
    video = random_video(9, 24, 32)
    expected = module.encode(video).latent_dist.mode()
    frames = module.decode(expected).sample
    accelerate(module.to("cuda"), SMALL_TILES)
    found = module.encode(video).latent_dist.mode()
    assert found.device.type == module.decode(found).sample.device.type == "cpu"
    assert_close(found, expected, 1e-3)
    assert_close(module.decode(expected.cuda()).sample.cpu(), frames, 1e-3)
