"""How do files hold a VAE of HunyuanVideo, which is Kandinsky 5's and FramePack's, too?

1. Under diffusers' names, which are the authors', or under ComfyUI's. There a decoder's levels are
   numbered as an encoder's, and attention multiplies by convolutions where diffusers has linear
   maps.
2. Any width, depth and number of channels is read off the shapes; by how much a level changes the
   number of frames they do not show: it is halved by the last two of those that halve the size.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from .cogvideox_keys import NORM_NUM_GROUPS
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution, count

_TITLE = "HunyuanVideo"
_FRAMES = 4

_NAMES = (
    (re.compile(r"(?<=encoder\.)down\.(\d+)\.block(?=\.)"), r"down_blocks.\1.resnets"),
    (re.compile(r"(?<=encoder\.)down\.(\d+)\.downsample(?=\.)"), r"down_blocks.\1.downsamplers.0"),
    (re.compile(r"(?<=coder\.)mid\.block_1(?=\.)"), "mid_block.resnets.0"),
    (re.compile(r"(?<=coder\.)mid\.attn_1\.norm(?=\.)"), "mid_block.attentions.0.group_norm"),
    (re.compile(r"(?<=coder\.)mid\.attn_1\.proj_out(?=\.)"), "mid_block.attentions.0.to_out.0"),
    (re.compile(r"(?<=coder\.)mid\.attn_1\.([qkv])(?=\.)"), r"mid_block.attentions.0.to_\1"),
    (re.compile(r"(?<=coder\.)mid\.block_2(?=\.)"), "mid_block.resnets.1"),
    (re.compile(r"(?<=coder\.)norm_out(?=\.)"), "conv_norm_out"),
    (re.compile(r"(?<=\.)nin_shortcut(?=\.)"), "conv_shortcut"),
)
"""ComfyUI's names, and diffusers' in their place."""

_UP = re.compile(r"(?<=^decoder\.)up\.(\d+)\.(block|upsample)(?=\.)")
_IN_LEVEL = {"block": "resnets", "upsample": "upsamplers.0"}


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(_UP.search(name) for name in names):
        return {name: name for name in names}
    levels = count(names, r"decoder\.up\.(\d+)\.")
    return {name: _diffusers_name(name, levels) for name in names}


def _diffusers_name(name: str, levels: int) -> str:
    for pattern, ours in _NAMES:
        name = pattern.sub(ours, name)
    return _UP.sub(lambda hit: f"up_blocks.{levels - 1 - int(hit[1])}.{_IN_LEVEL[hit[2]]}", name)


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    del kind
    levels = count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    depth = count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    if not levels or not depth:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    path = "encoder.down_blocks.{}.resnets.0.conv1.conv.weight"
    halves = count(shapes, r"encoder\.down_blocks\.(\d+)\.downsamplers\.")
    return {
        "in_channels": convolution(shapes, "encoder.conv_in.conv.weight", _TITLE)[1],
        "out_channels": convolution(shapes, "decoder.conv_out.conv.weight", _TITLE)[0],
        "latent_channels": convolution(shapes, "decoder.conv_in.conv.weight", _TITLE)[1],
        "block_out_channels": [
            convolution(shapes, path.format(i), _TITLE)[0] for i in range(levels)
        ],
        "down_block_types": ["HunyuanVideoDownBlock3D"] * levels,
        "up_block_types": ["HunyuanVideoUpBlock3D"] * levels,
        "layers_per_block": depth,
        "spatial_compression_ratio": 2**halves,
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    widths = tuple(facts["block_out_channels"])
    groups = config.get("norm_num_groups", NORM_NUM_GROUPS)
    if not isinstance(groups, int) or groups < 1 or any(width % groups for width in widths):
        raise LoadError(
            f"GroupNorm's {groups!r} groups must divide the channels of every level; they are"
            f" {widths}. Put a config.json with the right norm_num_groups beside the file."
        )
    return Architecture(
        family="hunyuan",
        block_out_channels=widths,
        layers_per_block=facts["layers_per_block"],
        latent_channels=facts["latent_channels"],
        in_channels=facts["in_channels"],
        out_channels=facts["out_channels"],
        norm_num_groups=groups,
        spatial_compression_ratio=facts["spatial_compression_ratio"],
        temporal_compression_ratio=config.get("temporal_compression_ratio", _FRAMES),
    )


HUNYUAN_KEYS = Keys(
    family="hunyuan",
    title=_TITLE,
    classes=("AutoencoderKLHunyuanVideo",),
    needs="0.32",
    marks=re.compile(
        r"decoder\.(?:up\.\d+\.block\.0\.conv1|up_blocks\.0\.resnets\.0\.conv1)\.conv\.weight"
    ),
    others=re.compile(
        r"decoder\..*(?:norm1\.gamma|norm1\.conv_y\.conv\.weight|norm_layer\.weight)|latents_mean"
    ),
    parts=("encoder.", "decoder.", "quant_conv.", "post_quant_conv."),
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("in_channels", "out_channels", "latent_channels", "block_out_channels"),
            *("layers_per_block", "spatial_compression_ratio"),
        )
    ),
    architecture=_architecture,
    linear=re.compile(r"(?:en|de)coder\.mid_block\.attentions\.0\.to_.*\.weight"),
)
