"""Does every method of the class by which its parts are run lead through the engine, also from
functions that torch compiles or exports?
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest
import torch
from contract import assert_close
from diffusers import AutoencoderKLCogVideoX
from networks import random_latents, random_module, random_video

from vae_core import InputError, Settings, SettingsError, from_module
from vae_core.accelerate import accelerate, restore

CLASS = AutoencoderKLCogVideoX
DOORS = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
VIDEO, LATENTS = random_video(9, 40, 48, batch=2), random_latents(3, 5, 6, batch=2)


@pytest.fixture(name="module")
def fresh_module() -> AutoencoderKLCogVideoX:
    return random_module()


@pytest.fixture(name="compiler")
def fresh_compiler() -> Iterator[list[torch.fx.GraphModule]]:
    """The graphs that `compiled` functions were cut into."""
    torch._dynamo.reset()
    yield GRAPHS
    GRAPHS.clear()
    torch._dynamo.reset()


GRAPHS: list[torch.fx.GraphModule] = []


def compiled(function):
    def backend(graph: torch.fx.GraphModule, inputs):
        GRAPHS.append(graph)
        return graph.forward

    return torch.compile(function, backend=backend)


def watched(module) -> list[str]:
    """Accelerate `module`; the module paths of the steps that the engine runs from then on."""
    paths: list[str] = []
    settings = Settings(layout="diffusers", on_progress=lambda p: paths.append(p.path))
    accelerate(module, settings)
    return paths


def result_of(module, door: str):
    source = VIDEO if "encode" in door else LATENTS
    found = getattr(module, door)(source)
    found = found.latent_dist.parameters if hasattr(found, "latent_dist") else found
    return found.sample if hasattr(found, "sample") else found


@pytest.mark.parametrize("door", DOORS)
def test_every_door_gives_what_the_class_gives_through_the_engine(module, door) -> None:
    untiled = {"tiled_encode": "_encode", "tiled_decode": "_decode"}.get(door, door)
    expected = result_of(module, untiled)
    signature = inspect.signature(getattr(module, door))
    paths = watched(module)
    found = result_of(module, door)
    assert paths, "the engine did not run"
    assert_close(found, expected)
    assert list(inspect.signature(getattr(module, door)).parameters) == list(signature.parameters)
    restore(module)
    paths.clear()
    result_of(module, untiled)
    assert not paths


@pytest.mark.parametrize("door", ["_decode", "tiled_decode"])
def test_doors_that_decode_return_tuples_when_asked(module, door) -> None:
    expected = CLASS._decode(module, LATENTS).sample
    watched(module)
    (found,) = getattr(module, door)(LATENTS, return_dict=False)
    assert_close(found, expected)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("sliced", [False, True])
def test_moments_as_pre_encoding_scripts_take_them(module, sliced, tiled) -> None:
    """cogvideox-factory's prepare_dataset.py and finetrainers without compute_posterior: the script
    slices by itself, and stores [b, t, 2c, h, w] to sample from later.
    """
    expected = CLASS._encode(module, VIDEO)
    if tiled:
        module.enable_tiling(tile_sample_min_height=32, tile_sample_min_width=24)
    if sliced:
        module.enable_slicing()
    paths = watched(module)
    clips = VIDEO.split(1) if module.use_slicing else (VIDEO,)
    moments = torch.cat([module._encode(clip) for clip in clips])
    stored = moments.to(memory_format=torch.contiguous_format, dtype=torch.float32)
    assert_close(stored.permute(0, 2, 1, 3, 4), expected.permute(0, 2, 1, 3, 4))
    images = module._encode(VIDEO[:, :, :1])
    restore(module)
    module.disable_tiling()
    assert_close(images, CLASS._encode(module, VIDEO[:, :, :1]))
    assert {path.split(".")[0] for path in paths} == {"encoder"}


def test_only_encode_and_decode_slice(module) -> None:
    paths = watched(module)
    module.encode(VIDEO)
    together = len(paths)
    module.enable_slicing()
    module._encode(VIDEO)
    module.tiled_encode(VIDEO)
    assert len(paths) == 3 * together
    module.encode(VIDEO)
    assert len(paths) == 5 * together


def test_without_settings_the_classs_own_chunks_hold(module) -> None:
    latents = random_latents(5, 3, 4)
    module.num_latent_frames_batch_size, module.num_sample_frames_batch_size = 1, 4
    expected = CLASS._decode(module, latents).sample, CLASS._encode(module, VIDEO)
    accelerate(module)
    assert_close(module.decode(latents).sample, expected[0])
    assert_close(module._encode(VIDEO), expected[1])
    accelerate(module, Settings(layout="diffusers", chunk_frames=8))
    given = module.decode(latents).sample
    module.num_latent_frames_batch_size = 2
    assert_close(given, CLASS._decode(restore(module), latents).sample)
    module.num_sample_frames_batch_size = 6
    with pytest.raises(SettingsError, match="multiple of 4"):
        accelerate(module).encode(VIDEO)


@pytest.mark.parametrize("door", DOORS)
def test_a_compiled_function_breaks_its_graph_at_a_door(module, door, compiler) -> None:
    def around(x):
        found = getattr(module, door)(0.5 * x)
        found = found.latent_dist.mean if hasattr(found, "latent_dist") else found
        return (found.sample if hasattr(found, "sample") else found) + 1

    watched(module)
    source = VIDEO if "encode" in door else LATENTS
    expected = around(source)
    assert torch.equal(compiled(around)(source), expected)
    called = {str(node.target) for graph in compiler for node in graph.graph.nodes}
    assert not {name for name in called if "conv" in name}, "a part of the engine was traced"
    assert len(compiler) == 2, "the graph before the call, and the one after it"


def test_doors_themselves_and_the_whole_module_may_be_compiled(module, compiler) -> None:
    expected = CLASS.forward(module, VIDEO).sample
    accelerate(module)
    assert_close(compiled(module.decode)(LATENTS).sample, module.decode(LATENTS).sample)
    assert_close(compiled(module)(VIDEO).sample, expected)


def test_a_compiled_vae_is_accelerated_inside_its_wrapper(module, compiler) -> None:
    expected = CLASS._decode(module, LATENTS).sample
    wrapped = compiled(module)
    assert accelerate(wrapped) is wrapped
    assert "decode" in vars(module)
    assert_close(wrapped.decode(LATENTS).sample, expected)
    restore(wrapped)
    assert "decode" not in vars(module)


def test_the_engine_itself_may_be_called_from_a_compiled_function(module, compiler) -> None:
    vae = from_module(module)

    def around(video, latents):
        streamed = torch.cat(list(vae.decode_stream(latents * 1)), dim=2)
        return vae.encode(video * 1).moments, vae.decode(latents * 1), streamed

    expected = around(VIDEO, LATENTS)
    for found, whole in zip(compiled(around)(VIDEO, LATENTS), expected, strict=True):
        assert torch.equal(found, whole)


class Around(torch.nn.Module):
    """What somebody would export: something that calls a VAE."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z):
        return self.vae.decode(z).sample


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_holds_the_classs_own_network(module, strict, compiler) -> None:
    latents = random_latents(3, 2, 3)
    expected = CLASS._decode(module, latents).sample
    accelerate(module)
    program = torch.export.export(Around(module), (latents,), strict=strict)
    assert_close(program.module()(latents), expected)


def test_exporting_another_result_than_the_classs_is_refused(module, compiler) -> None:
    accelerate(module, Settings())
    latents = random_latents(2, 2, 3)
    with pytest.raises(InputError, match=r"vae_core\.restore"):
        torch.export.export(Around(module), (latents,), strict=False)


def test_exporting_the_engine_is_refused_in_a_sentence(module, compiler) -> None:
    class Engine(torch.nn.Module):
        def forward(self, z):
            return vae.decode(z)

    vae = from_module(module)
    with pytest.raises(InputError, match=r"VideoVAE\.decode runs outside of graphs"):
        torch.export.export(Engine(), (random_latents(2, 2, 3),), strict=False)


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated:DeprecationWarning")
def test_tracing_the_engine_is_refused_in_a_sentence(module) -> None:
    vae = from_module(module)
    calls = {
        "decode": (vae.decode, random_latents(2, 2, 3)),
        "encode": (lambda x: vae.encode(x).mean, random_video(5, 16, 16)),
    }
    for name, (call, x) in calls.items():
        with pytest.raises(InputError, match=rf"VideoVAE\.{name}.*torch\.jit\.trace takes no"):
            torch.jit.trace(call, x)
