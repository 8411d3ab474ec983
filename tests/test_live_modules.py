"""Is a live module run as it is at each call, whatever brought it there?"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from contract import assert_close
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as parts
from networks import diffusers_decode, diffusers_encode, random_latents, random_module, random_video
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from vae_core import InputError, LoweringError, from_module
from vae_core.accelerate import accelerate

Change = Callable[[AutoencoderKLCogVideoX], object]


@pytest.fixture(name="module")
def fresh_module() -> AutoencoderKLCogVideoX:
    return random_module()


def block(module) -> parts.CogVideoXResnetBlock3D:
    return module.encoder.down_blocks[1].resnets[0]


def conv(module) -> nn.Conv3d:
    return block(module).conv1.conv


BLOCK = r"encoder\.down_blocks\.1\.resnets\.0"
CONV = BLOCK + r"\.conv1\.conv"


class Quiet(parts.CogVideoXSafeConv3d):
    """Adds nothing to the maths."""

    def extra_repr(self) -> str:
        return "quiet"

    def count(self) -> int:
        return self.weight.numel()


def parametrise(module) -> None:
    for kind in (parametrizations.weight_norm, parametrizations.spectral_norm):
        kind(module.encoder.conv_in.conv)
        kind(block(module).conv2.conv)
    module.eval().requires_grad_(False)


def compile_parts(module) -> None:
    module.decoder.mid_block.compile(backend="eager")
    module.encoder.down_blocks[0] = torch.compile(module.encoder.down_blocks[0], backend="eager")
    module.encoder = torch.compile(module.encoder, backend="eager")
    module.decode = torch.compile(module.decode, backend="eager")


def bring_weights(module) -> None:
    """What accelerate's offloading leaves on every part, here with nowhere to bring them from."""
    for part in (module.encoder, *module.encoder.modules()):
        hook(part, sequence(align()))


SAME_RESULT: dict[str, Change] = {
    "training without dropout": lambda m: m.train(),
    "dropout in evaluation": lambda m: setattr(block(m).dropout, "p", 0.5),
    "no dropout": lambda m: setattr(block(m), "dropout", nn.Identity()),
    "a subclass that adds nothing": lambda m: setattr(conv(m), "__class__", Quiet),
    "a VAE's subclass": lambda m: setattr(
        m, "__class__", type("Own", (AutoencoderKLCogVideoX,), {"enable": lambda self: None})
    ),
    "parametrised weights": parametrise,
    "compiled parts": compile_parts,
    "its own forward laid over it": lambda m: setattr(block(m), "forward", block(m).forward),
    "a door without gradients": lambda m: setattr(m, "encode", torch.no_grad()(m.encode)),
    "hooks that bring weights": bring_weights,
    "hooks on gradients": lambda m: conv(m).register_full_backward_hook(lambda *_: None),
    "an attribute of somebody's": lambda m: setattr(conv(m), "colour", "red"),
    "another eps": lambda m: setattr(block(m).norm1, "eps", 0.3),
    "no affine map": lambda m: setattr(block(m), "norm1", nn.GroupNorm(2, 8, affine=False)),
}


@pytest.mark.parametrize("name", SAME_RESULT)
def test_what_the_engine_computes_alike_is_run(module, name) -> None:
    vae = from_module(module)
    SAME_RESULT[name](module)
    video, latents = random_video(9, 16, 24), random_latents(3, 2, 3)
    expected = AutoencoderKLCogVideoX._encode(module, video)
    frames = AutoencoderKLCogVideoX._decode(module, latents).sample
    for one in (vae, from_module(module)):
        assert_close(one.encode(video).moments, expected)
        assert_close(one.decode(latents), frames)
    accelerate(module)
    assert_close(module.encode(video).latent_dist.parameters, expected)
    assert_close(module.decode(latents).sample, frames)


def foreign(name: str, *bases: type, **methods: object) -> type:
    """A class of a package that is not installed here."""
    return type(name, bases, {"__module__": "accelerate.hooks", **methods})


def align() -> object:
    passed = {
        "pre_forward": lambda self, part, *args, **kwargs: (args, kwargs),
        "post_forward": lambda self, part, output: output,
    }
    return foreign("AlignDevicesHook", **passed)()


def sequence(*hooks: object) -> object:
    found = align()
    found.__class__ = foreign("SequentialHook", type(found), hooks=hooks)
    return found


def hook(part: nn.Module, added: object) -> None:
    """Lay `added` around `part` as accelerate's add_hook_to_module does."""

    def new_forward(module, *args, **kwargs):
        args, kwargs = added.pre_forward(module, *args, **kwargs)
        return added.post_forward(module, module._old_forward(*args, **kwargs))

    new_forward.__module__ = "accelerate.hooks"
    part._hf_hook, part._old_forward = added, getattr(part, "_old_forward", part.forward)
    part.forward = functools.update_wrapper(functools.partial(new_forward, part), part._old_forward)


def test_hooks_that_change_values_are_refused_wherever_they_hide(module) -> None:
    scaled = type("Scaled", (), dict(vars(type(align()))))()
    hook(block(module), sequence(align(), scaled))
    with pytest.raises(LoweringError, match=BLOCK + " has a forward of its own"):
        accelerate(module)


def test_a_forward_under_hooks_that_bring_weights_has_to_be_the_classs(module) -> None:
    block(module).forward = lambda x, *args, **kwargs: (x, {})
    hook(block(module), align())
    with pytest.raises(LoweringError, match=BLOCK + " has a forward of its own"):
        accelerate(module)


def test_caches_of_diffusers_on_a_part_are_refused(module) -> None:
    from diffusers.hooks import HookRegistry, ModelHook

    HookRegistry.check_if_exists_or_initialize(block(module)).register_hook(ModelHook(), "mine")
    with pytest.raises(LoweringError, match=BLOCK + " has a forward of its own"):
        accelerate(module)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(block(m).norm1, "eps", 0.3),
        lambda m: m.encoder.mid_block.resnets.append(random_module().encoder.mid_block.resnets[1]),
        lambda m: setattr(m.encoder, "conv_in", random_module(groups=2).encoder.conv_in),
        lambda m: setattr(block(m), "norm2", nn.GroupNorm(2, 8).requires_grad_(False)),
    ],
    ids=["eps", "depth", "weights", "groups"],
)
def test_what_changes_between_calls_is_followed(change: Change) -> None:
    module = random_module()
    vae, video = from_module(module), random_video(9, 16, 24)
    accelerated = accelerate(random_module())
    for one in (module, accelerated):
        vae.encode(video), accelerated.encode(video)
        before = diffusers_encode(module, video, 8)
        with torch.no_grad():
            change(one)
    expected = diffusers_encode(module, video, 8)
    assert_close(vae.encode(video).moments, expected)
    assert_close(accelerated.encode(video).latent_dist.parameters, expected)
    assert before.shape == expected.shape


def test_a_deeper_decoder_is_followed(module) -> None:
    vae, latents = from_module(module), random_latents(3, 2, 3)
    before = vae.decode(latents)
    module.decoder.up_blocks[1].resnets.append(random_module().decoder.up_blocks[1].resnets[1])
    expected = diffusers_decode(module, latents, 8)
    assert_close(vae.decode(latents), expected)
    assert not torch.allclose(before, expected, atol=1e-2)


def test_refusals_come_before_anything_is_computed(module) -> None:
    vae = from_module(module)
    module.encoder.conv_act = nn.ReLU()
    with pytest.raises(LoweringError):
        vae.encode(torch.full((1, 3, 1, 16, 16), torch.nan))
    with pytest.raises(InputError):
        vae.decode(torch.full((1, 4, 1, 2, 2), torch.nan))


def test_parametrised_weights_are_those_of_the_moment(module) -> None:
    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    vae, video = from_module(module), random_video(1, 16, 16)
    parametrize.register_parametrization(conv(module).eval(), "weight", Twice().eval())
    conv(module).parametrizations.eval()
    assert_close(vae.encode(video).moments, diffusers_encode(module, video, 8))
