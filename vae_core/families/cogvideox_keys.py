"""How do files hold a CogVideoX VAE?

Under diffusers' names or the original (SAT) ones, which are translated. Its decoder's spatial norms
(`conv_y.conv`) are named as no other family's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from ..geometry.ratios import Ratios
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution, count

NORM_NUM_GROUPS = 32
"""GroupNorm's groups in every CogVideoX VAE; weights do not show the number."""

_TITLE = "CogVideoX"
RATIOS = Ratios(px=8, frames=4)
"""What a latent element of every CogVideoX VAE stands for."""

# Names that THUDM/CogVideo's sat/vae_modules/cp_enc_dec.py (e519ece) gives, to diffusers' names;
# `up` is apart, since its order is reversed. None of the patterns occurs in diffusers' own names.
_SAT_TO_DIFFUSERS = (
    (re.compile(r"^encoder\.down\."), "encoder.down_blocks."),
    (re.compile(r"^(encoder|decoder)\.mid\.block_1\."), r"\1.mid_block.resnets.0."),
    (re.compile(r"^(encoder|decoder)\.mid\.block_2\."), r"\1.mid_block.resnets.1."),
    (re.compile(r"(_blocks\.\d+)\.block\."), r"\1.resnets."),
    (re.compile(r"(_blocks\.\d+)\.(up|down)sample\."), r"\1.\2samplers.0."),
    (re.compile(r"\.nin_shortcut\."), ".conv_shortcut."),
)
_SAT_UP = re.compile(r"^decoder\.up\.(\d+)\.")


def _translate(names: Collection[str]) -> dict[str, str]:
    levels = count(names, r"decoder\.up\.(\d+)\.")
    return {name: _diffusers_name(name, levels) for name in names}


def _diffusers_name(name: str, up_levels: int) -> str:
    name = _SAT_UP.sub(lambda hit: f"decoder.up_blocks.{up_levels - 1 - int(hit[1])}.", name)
    for pattern, replacement in _SAT_TO_DIFFUSERS:
        name = pattern.sub(replacement, name)
    return name


def _numbers(shapes: Shapes) -> dict[str, Any]:
    """The numbers of a config.json that shapes show."""
    resnets = "encoder.down_blocks.{}.resnets.0.conv1.conv.weight"
    levels = range(count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    widths = tuple(convolution(shapes, resnets.format(level), _TITLE)[0] for level in levels)
    return {
        "block_out_channels": widths,
        "layers_per_block": count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "latent_channels": convolution(shapes, "decoder.conv_in.conv.weight", _TITLE)[1],
        "in_channels": convolution(shapes, "encoder.conv_in.conv.weight", _TITLE)[1],
        "out_channels": convolution(shapes, "decoder.conv_out.conv.weight", _TITLE)[0],
    }


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    numbers = _numbers(shapes)
    levels = len(numbers["block_out_channels"])
    return numbers | {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    numbers = _numbers(shapes)
    groups = config.get("norm_num_groups", NORM_NUM_GROUPS)
    if not isinstance(groups, int):
        raise LoadError(f"norm_num_groups in config.json must be a whole number; it is {groups!r}.")
    _check_groups(numbers["block_out_channels"], groups)
    return Architecture(
        family="cogvideox",
        **numbers,
        norm_num_groups=groups,
        spatial_compression_ratio=RATIOS.px,
        temporal_compression_ratio=config.get("temporal_compression_ratio", RATIOS.frames),
    )


def _check_groups(widths: tuple[int, ...], groups: int) -> None:
    if not widths:
        raise LoadError(f"this CogVideoX VAE is incomplete: its encoder is missing. {EXPECTED}")
    if groups < 1 or any(width % groups for width in widths):
        raise LoadError(
            f"GroupNorm's {groups} groups must divide the channels of every level; they are"
            f" {widths}. Put a config.json with the right norm_num_groups beside the file."
        )


COGVIDEOX_KEYS = Keys(
    family="cogvideox",
    title=_TITLE,
    classes=("AutoencoderKLCogVideoX",),
    needs="0.30",
    marks=re.compile(r"decoder\.(?:.+\.)?norm(?:1|2|_out)\.conv_[yb]\.conv\.weight"),
    others=None,
    parts=("encoder.", "decoder.", "quant_conv.", "post_quant_conv."),
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        ("block_out_channels", "layers_per_block", "latent_channels", "in_channels", "out_channels")
    ),
    architecture=_architecture,
)
