"""What are the parts of HunyuanVideo's VAE called, and what does the engine rely on in them?

It is Kandinsky 5's and FramePack's, too. Names and padding are those of HunyuanVideo 1.5 for a
good part (`hunyuan15_parts`); what differs stands here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Edge, Norm, Runs, Scope
from ..program.steps import Program, Step
from .attributes import HOST_OPERATIONS, TORCH, Known
from .building import child, geometry
from .hunyuan15_parts import AUTHORS as AUTHORS_1_5
from .hunyuan15_parts import DIFFUSERS as DIFFUSERS_1_5
from .hunyuan15_parts import replicates


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one class calls the parts of the network; several names stand for a path.

    levels: of encoder and decoder. blocks: in a level. samplers: at a level's end, of encoder and
        decoder. middle: residual block, attention, residual block.
    attention: norm, queries, keys, values, projection. norm_out: the last norm.
    shortcut: of a residual block where channels change.
    backwards: whether a decoder's levels are kept in the order of an encoder's.
    """

    levels: tuple[str, str]
    blocks: str
    samplers: tuple[str, str]
    middle: tuple[str, str, str]
    attention: tuple[str, str, str, str, str]
    norm_out: str
    shortcut: str
    backwards: bool


DIFFUSERS = Dialect(
    levels=DIFFUSERS_1_5.levels,
    blocks=DIFFUSERS_1_5.blocks,
    samplers=DIFFUSERS_1_5.samplers,
    middle=DIFFUSERS_1_5.middle,
    attention=("group_norm", "to_q", "to_k", "to_v", "to_out.0"),
    norm_out="conv_norm_out",
    shortcut="conv_shortcut",
    backwards=False,
)
CORE = Dialect(
    levels=AUTHORS_1_5.levels,
    blocks=AUTHORS_1_5.blocks,
    samplers=AUTHORS_1_5.samplers,
    middle=AUTHORS_1_5.middle,
    attention=("norm", "q", "k", "v", "proj_out"),
    norm_out="norm_out",
    shortcut="nin_shortcut",
    backwards=True,
)

_DIFFUSERS = "diffusers.models.autoencoders.autoencoder_kl_hunyuan_video."
_PARTS = f"{_DIFFUSERS}HunyuanVideo"
_HOST = "comfy.ldm.modules.diffusionmodules.model."
_FACTORS = ((1, 2, 2), (2, 2, 2))


def factors_of(module: nn.Module) -> tuple[int, ...]:
    """By how much a decoder's sampler changes frames, height and width."""
    factor = cast("Any", getattr(module, "upsample_factor", None))
    factor = cast("Any", module).scale_factor if factor is None else factor
    if isinstance(factor, tuple | list):
        return tuple(cast("tuple[int, ...]", factor))
    return (factor,) * 3


def _doubles(module: nn.Module) -> str | None:
    factors = factors_of(module)
    return None if factors in _FACTORS else f"must double height and width; it has {factors}."


def _attends_once(module: nn.Module) -> str | None:
    """What diffusers' attention can do beside that."""
    attention = cast("Any", module)
    kind = type(attention.processor).__name__
    plain = attention.heads == 1 and attention.rescale_output_factor == 1.0
    own = attention.residual_connection and not attention.norm_cross
    bare = attention.spatial_norm is None and attention.norm_q is None
    if kind in ("AttnProcessor", "AttnProcessor2_0") and plain and own and bare:
        return None
    return f"must attend with one head, by diffusers' own processor; it has {kind}."


KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    "torch.nn.modules.module.Module": Known(),
    "torch.nn.modules.linear.Linear": Known(),
    "comfy.ops.disable_weight_init.Linear": Known(),
    f"{_PARTS}CausalConv3d": Known(rule=replicates),
    f"{_PARTS}UpsampleCausal3D": Known(rule=_doubles),
    "diffusers.models.attention_processor.Attention": Known(rule=_attends_once),
    **{
        f"{_PARTS}{name}": Known()
        for name in (
            *("DownsampleCausal3D", "ResnetBlockCausal3D", "MidBlock3D", "DownBlock3D"),
            *("UpBlock3D", "Encoder3D", "Decoder3D"),
        )
    },
    f"{_HOST}Upsample": Known({"with_conv": (True,)}, _doubles),
    f"{_HOST}Downsample": Known({"with_conv": (True,)}),
    **{f"{_HOST}{name}": Known({"carried": (True,)}) for name in ("Encoder", "Decoder")},
    **{f"{_HOST}{name}": Known() for name in ("ResnetBlock", "AttnBlock", "CarriedConv3d")},
}
"""The classes of parts that the engine runs, and what it relies on in them."""

DOORS = {
    f"{_DIFFUSERS}AutoencoderKLHunyuanVideo": (
        *("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode"),
        *("_temporal_tiled_encode", "_temporal_tiled_decode"),
    ),
    "comfy.ldm.models.autoencoder.AutoencoderKL": ("encode", "decode"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""


def dialect_of(module: nn.Module) -> Dialect:
    return CORE if hasattr(getattr(module, "decoder", None), "mid") else DIFFUSERS


def causal(module: nn.Module, path: str) -> tuple[Conv, int]:
    """A convolution of 3x3x3 that sees a clip's first frame before it and its edges around it, and
    from one output of it to the next in time.
    """
    inner, path = child(module, path, "conv"), f"{path}.conv"
    if not isinstance(inner, nn.Conv3d) or any(inner.padding):
        raise LoweringError(f"{path} must be a convolution that does not pad; it is {inner}.")
    conv = geometry(inner, path, Halo(1, 1))
    down = inner.stride[0]
    if (conv.kernel_t, conv.kernel) != (3, 3) or down > 2 or conv.stride > 2 or down > conv.stride:
        raise LoweringError(f"{path} must see 3x3x3 voxels, or halve; it is {inner}.")
    return replace(conv, edge=Edge.REPLICATE), down


def group_norm(module: nn.Module, path: str, *, activated: bool = True) -> Norm:
    """A GroupNorm over the whole clip, followed by SiLU where it is activated."""
    if not isinstance(module, nn.GroupNorm):
        raise LoweringError(f"{path} must be a GroupNorm; it is {type(module).__name__}.")
    counts = module.num_channels, module.num_groups
    return Norm(path, *counts, module.eps, activated=activated, scope=Scope.CLIP)


def of_voxels(module: nn.Module, path: str) -> Conv:
    """What multiplies the channels of single voxels: a convolution of 1x1x1, which may be inside
    another part, or a linear map.
    """
    if isinstance(module, nn.Linear):
        made, seen = module.weight.shape
        return Conv(path, seen, made, 1, 1, 1, Halo(0, 0))
    if isinstance(inner := getattr(module, "conv", None), nn.Module):
        module, path = inner, f"{path}.conv"
    if not isinstance(module, nn.Conv3d) or any(module.padding):
        raise LoweringError(f"{path} must be a 1x1x1 convolution; it is {module}.")
    conv = geometry(module, path, Halo(0, 0))
    if (conv.kernel_t, conv.kernel, conv.stride) != (1, 1, 1):
        raise LoweringError(f"{path} must be a 1x1x1 convolution; it is {module}.")
    return conv


_LATENTS = 2
"""Latent frames that ComfyUI's class takes at a time outside of the middle."""


def in_runs(program: Program, *names: str) -> Program:
    """`program` whose norms in those parts are told over which frames ComfyUI's class takes their
    statistics.

    It begins an encoder with the first frame alone; a decoder has that one among its first run.
    """

    def told(step: Step) -> Step:
        part = step.norm.path.split(".")[1] if step.norm else None
        if step.norm is None or part not in names:
            return step
        of_latent = program.ratios.frames // program.stores[step.src].frames
        first = 1 if program.encodes else 1 + (_LATENTS - 1) * of_latent
        return replace(step, norm=replace(step.norm, runs=Runs(first, _LATENTS * of_latent)))

    return replace(program, steps=tuple(map(told, program.steps)))
