"""Is a live module that computes something else than its class is known for refused, with the path
of the part, and is every other one run?
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders import autoencoder_kl_cogvideox as parts
from networks import random_module
from torch import nn
from torch.nn.utils import parametrizations

from vae_core import LoweringError, from_module, load
from vae_core.accelerate import accelerate
from vae_core.families.attributes import HOST_OPERATIONS, check, full_name
from vae_core.families.cogvideox import DOORS, KNOWN

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


class Louder(parts.CogVideoXSafeConv3d):
    def forward(self, input):
        return 2 * super().forward(input)


class Adapter(nn.Module):
    """A low-rank adapter as peft lays it around a convolution, with its attributes shown."""

    def __init__(self, base_layer: nn.Conv3d) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.added = nn.Conv3d(
            base_layer.in_channels, base_layer.out_channels, 1, padding=(1, 0, 0)
        )

    weight = property(lambda self: self.base_layer.weight)
    bias = property(lambda self: self.base_layer.bias)

    def forward(self, x):
        return self.base_layer(x)


def adapt(module) -> None:
    block(module).conv1.conv = Adapter(conv(module))


def drop(module) -> None:
    block(module).dropout.p = 0.5
    module.train()


def widen_steps(module) -> None:
    module.encoder.down_blocks[0].downsamplers[0].conv.padding = (1, 1)


def store_integers(module) -> None:
    module.encoder.conv_in.conv.weight = nn.Parameter(
        torch.ones(8, 3, 3, 3, 3, dtype=torch.int8), requires_grad=False
    )


def doubled(*args):
    return tuple(2 * arg for arg in args)


OTHER_RESULTS: dict[str, tuple[str, Change]] = {
    "another activation": (
        BLOCK + r"\.nonlinearity is a torch\.nn\.modules\.activation\.ReLU",
        lambda m: setattr(block(m), "nonlinearity", nn.ReLU()),
    ),
    "another last activation": (
        r"encoder\.conv_act is a .*GELU",
        lambda m: setattr(m.encoder, "conv_act", nn.GELU()),
    ),
    "dropout while training": (BLOCK + r"\.dropout drops 50%", drop),
    "circular padding": (
        CONV + " is a conv",
        lambda m: setattr(conv(m), "padding_mode", "circular"),
    ),
    "padding in time": (CONV + " must keep", lambda m: setattr(conv(m), "padding", (1, 1, 1))),
    "no padding": (CONV + " must keep", lambda m: setattr(conv(m), "padding", (0, 0, 0))),
    "padding by name": (CONV + " pads 'same'", lambda m: setattr(conv(m), "padding", "same")),
    "padding before a stride": (r"downsamplers\.0\.conv must have", widen_steps),
    "taps in time": (
        BLOCK + r"\.conv1 has time_kernel_size = 2",
        lambda m: setattr(block(m).conv1, "time_kernel_size", 2),
    ),
    "a shortcut unused": (
        r"down_blocks\.2\.resnets\.0 has a conv_shortcut",
        lambda m: setattr(m.encoder.down_blocks[2].resnets[0], "in_channels", 16),
    ),
    "a hook on what goes in": (
        CONV + r" has a forward hook \(doubled\)",
        lambda m: conv(m).register_forward_pre_hook(doubled),
    ),
    "a hook on what comes out": (
        r"decoder has a forward hook \(doubled\)",
        lambda m: m.decoder.register_forward_hook(doubled),
    ),
    "legacy weight norm": (
        CONV + r" has a forward hook \(WeightNorm\)",
        lambda m: conv(m).register_forward_pre_hook(legacy_weight_norm(conv(m))),
    ),
    "a forward of one's own": (
        BLOCK + r" has a forward of its own",
        lambda m: setattr(block(m), "forward", doubled),
    ),
    "another block's forward": (
        BLOCK + r" has a forward of its own",
        lambda m: setattr(block(m), "forward", m.encoder.mid_block.resnets[0].forward),
    ),
    "seamless tiles": (
        CONV + r" has a _conv_forward of its own",
        lambda m: setattr(conv(m), "_conv_forward", doubled),
    ),
    "a subclass with a forward": (
        CONV + r" has a forward of its own \(.*Louder\.forward\)",
        lambda m: setattr(conv(m), "__class__", Louder),
    ),
    "an adapter": (CONV + " must be a convolution; it is Adapter", adapt),
    "integers": (r"encoder\.conv_in\.conv keeps its weight as torch\.int8", store_integers),
    "attention": (
        r"mid_block\.attentions \(ModuleList\) is unknown",
        lambda m: setattr(m.decoder.mid_block, "attentions", nn.ModuleList([nn.Linear(2, 2)])),
    ),
    "upsampling on the way down": (
        r"down_blocks\.3\.upsamplers \(ModuleList\) is unknown",
        lambda m: setattr(m.encoder.down_blocks[3], "upsamplers", nn.ModuleList([])),
    ),
    "noisy weights": (
        CONV + r" has parametrised weights in training mode",
        lambda m: parametrizations.spectral_norm(conv(m)).train(),
    ),
    "a door of one's own": (
        r"AutoencoderKLCogVideoX has a _decode of its own",
        lambda m: setattr(m, "_decode", doubled),
    ),
    "another VAE's door": (
        r"AutoencoderKLCogVideoX has a decode of its own",
        lambda m: setattr(m, "decode", random_module().decode),
    ),
}


def legacy_weight_norm(part: nn.Conv3d):
    """The hook of torch's old weight norm, which sets the weight at each call."""
    from torch.nn.utils.weight_norm import WeightNorm

    del part
    return WeightNorm("weight", 0)


@pytest.mark.parametrize("call", [accelerate, from_module])
@pytest.mark.parametrize("name", OTHER_RESULTS)
def test_what_would_change_the_result_is_refused_with_its_path(module, name, call) -> None:
    named, change = OTHER_RESULTS[name]
    change(module)
    with pytest.raises(LoweringError, match=named):
        call(module)


@pytest.mark.parametrize("name", OTHER_RESULTS)
def test_what_changes_later_is_refused_at_the_next_call(name) -> None:
    module = random_module()
    vae = from_module(module)
    named, change = OTHER_RESULTS[name]
    change(module)
    with pytest.raises(LoweringError, match=named):
        vae.plan_decode((1, 4, 1, 2, 2)), vae.plan_encode((1, 3, 1, 16, 16))


def test_an_activation_of_the_config_is_refused_also_when_it_is_loaded(tmp_path) -> None:
    module = AutoencoderKLCogVideoX(
        act_fn="relu",
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        norm_num_groups=4,
        layers_per_block=1,
    )
    with pytest.raises(LoweringError, match=r"nonlinearity is a .*ReLU"):
        accelerate(module)
    module.save_pretrained(tmp_path)
    with pytest.raises(LoweringError, match=r"nonlinearity is a .*ReLU"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("owner", "method", "named"),
    [
        (parts.CogVideoXResnetBlock3D, "forward", r"resnets\.0 has a forward of its own"),
        (nn.Conv3d, "_conv_forward", r"conv_in\.conv has a _conv_forward of its own"),
        (nn.GroupNorm, "forward", r"norm1 has a forward of its own"),
        (AutoencoderKLCogVideoX, "_encode", r"has a _encode of its own"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_class_that_was_patched_is_refused_and_taken_again_later(
    module, owner, method, named
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, lambda self, *args, **kwargs: args[0])
        with pytest.raises(LoweringError, match=named):
            from_module(module)
    from_module(module)


@pytest.mark.parametrize("door", [*DOORS["diffusers.models.autoencoders.autoencoder_kl_cogvideox"
                                         ".AutoencoderKLCogVideoX"]])  # fmt: skip
def test_a_subclass_with_a_door_of_its_own_is_refused(module, door) -> None:
    module.__class__ = type("Own", (AutoencoderKLCogVideoX,), {door: lambda self, x: 2 * x})
    for call in (accelerate, from_module):
        with pytest.raises(LoweringError, match=f"Own has a {door} of its own"):
            call(module)


def test_weights_that_comfyui_patches_are_refused() -> None:
    named = {"__module__": "comfy.ops", "__qualname__": "disable_weight_init.Conv3d"}
    part = type("Conv3d", (nn.Conv3d,), {**named, "weight_function": [], "bias_function": []})(
        1, 1, 1
    )
    check(part, "decoder", HOST_OPERATIONS)
    part.weight_function = [lambda weight: 2 * weight]
    with pytest.raises(LoweringError, match="decoder has weight_function = "):
        check(part, "decoder", HOST_OPERATIONS)


def test_a_part_that_is_unknown_is_named_with_its_package(module) -> None:
    module.decoder.up_blocks[0].resnets[0].nonlinearity = module.encoder
    with pytest.raises(
        LoweringError, match=r"decoder\.up_blocks\.0\.resnets\.0\.nonlinearity is a"
    ):
        check(module.decoder, "decoder", {k: v for k, v in KNOWN.items() if "Encoder" not in k})


def test_a_hook_on_all_modules_is_refused_unless_it_is_torchs(module) -> None:
    handle = nn.modules.module.register_module_forward_hook(lambda part, args, out: 2 * out)
    try:
        with pytest.raises(LoweringError, match="a forward hook on all modules"):
            from_module(module)
    finally:
        handle.remove()
    from torch.utils.module_tracker import ModuleTracker

    with ModuleTracker():
        from_module(module)


# What methods of each class read of themselves: lowered, looked at, or without effect on values.
READ = {
    "CogVideoXSafeConv3d": {"kernel_size"},
    "CogVideoXCausalConv3d": {
        "conv", "fake_context_parallel_forward", "pad_mode", "time_causal_padding",
        "time_kernel_size",
    },
    "CogVideoXSpatialNorm3D": {"conv_b", "conv_y", "norm_layer"},
    "CogVideoXResnetBlock3D": {
        "conv1", "conv2", "conv_shortcut", "dropout", "in_channels", "nonlinearity", "norm1",
        "norm2", "out_channels", "temb_proj", "use_conv_shortcut",
    },
    "CogVideoXDownBlock3D": {"downsamplers", "resnets"},
    "CogVideoXMidBlock3D": {"resnets"},
    "CogVideoXUpBlock3D": {"resnets", "upsamplers"},
    "CogVideoXEncoder3D": {
        "conv_act", "conv_in", "conv_out", "down_blocks", "mid_block", "norm_out",
    },
    "CogVideoXDecoder3D": {
        "conv_act", "conv_in", "conv_out", "mid_block", "norm_out", "up_blocks",
    },
    "CogVideoXDownsample3D": {"compress_time", "conv"},
    "CogVideoXUpsample3D": {"compress_time", "conv"},
    "Conv2d": {
        "_conv_forward", "_reversed_padding_repeated_twice", "bias", "dilation", "groups",
        "padding", "padding_mode", "stride", "weight",
    },
    "GroupNorm": {"bias", "eps", "num_groups", "weight"},
    "SiLU": {"inplace"},
    "Dropout": {"inplace", "p", "training"},
    "Identity": set(),
    "Linear": {"bias", "weight"},
}  # fmt: skip
READ["Conv3d"] = READ["Conv2d"]
WITH_GRADIENTS_ONLY = {"gradient_checkpointing", "_gradient_checkpointing_func"}


def _installed() -> list[type]:
    """The known classes of packages that are installed here, but for plain containers."""
    found = []
    for name in KNOWN:
        module, _, title = name.rpartition(".")
        if module in sys.modules and title != "ModuleList":
            found.append(getattr(sys.modules[module], title))
    return found


@pytest.mark.parametrize("cls", _installed(), ids=full_name)
def test_every_attribute_that_a_known_class_reads_is_accounted_for(cls: type) -> None:
    """A new one in a new version of diffusers or torch has to be looked at before it is run."""
    read = set()
    for name, method in vars(cls).items():
        if isinstance(method, types.FunctionType) and name not in ("__init__", "extra_repr"):
            tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
            read |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
    assert read - WITH_GRADIENTS_ONLY - {"affine", "reset_parameters"} == READ[cls.__name__]
