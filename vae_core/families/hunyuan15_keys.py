"""How do files hold a VAE of HunyuanVideo 1.5?

1. Under the authors' names, which ComfyUI's file has as well, or under diffusers'. Both have a list
   for each level, and differ in the names of lists and parts alone.
2. Any width, depth and number of channels is read off the shapes. By how much a level changes the
   size and the number of frames, its last convolution's channels show.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution, count

_TITLE = "HunyuanVideo 1.5"

_NAMES = (
    (re.compile(r"(?<=coder\.)(down|up)\.(\d+)\.block(?=\.)"), r"\1_blocks.\2.resnets"),
    (re.compile(r"(?<=coder\.)(down|up)\.(\d+)\.\1sample(?=\.)"), r"\1_blocks.\2.\1samplers.0"),
    (re.compile(r"(?<=coder\.)mid\.block_1(?=\.)"), "mid_block.resnets.0"),
    (re.compile(r"(?<=coder\.)mid\.attn_1(?=\.)"), "mid_block.attentions.0"),
    (re.compile(r"(?<=coder\.)mid\.block_2(?=\.)"), "mid_block.resnets.1"),
    (re.compile(r"(?<=attentions\.0\.)([qkv])(?=\.)"), r"to_\1"),
    (re.compile(r"(?<=\.)nin_shortcut(?:\.conv)?(?=\.)"), "conv_shortcut"),
)
"""The authors' names, and diffusers' in their place."""

_IDLE = ".temb_proj."
"""In the names of weights that ComfyUI's class has, and no video goes through."""


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(name.startswith("decoder.mid.") for name in names):
        return {name: name for name in names}
    return {name: _diffusers_name(name) for name in names if _IDLE not in name}


def _diffusers_name(name: str) -> str:
    for pattern, ours in _NAMES:
        name = pattern.sub(ours, name)
    return name


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], int, tuple[int, ...], bool]:
    """Channels of each encoder level, residual blocks in it, how many places of what a level makes
    become one after it, for all levels of which that is so, and whether a level makes as many
    channels as the next one has.

    Raises `LoadError` where there is no level.
    """
    levels = count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    depth = count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    if not levels or not depth:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    path = "encoder.down_blocks.{}.{}.conv.weight"
    ends = [convolution(shapes, path.format(i, "resnets.0.conv1"), _TITLE) for i in range(levels)]
    widths = tuple(shape[0] for shape in ends)
    middle = convolution(shapes, "encoder.mid_block.resnets.0.conv1.conv.weight", _TITLE)[1]
    entered = (*(shape[1] for shape in ends[1:]), middle)
    samplers = [path.format(i, "downsamplers.0.conv") for i in range(levels)]
    made = [(shapes[name][0], entered[i]) for i, name in enumerate(samplers) if name in shapes]
    if any(few < 1 or many % few for few, many in made):
        raise LoadError(f"the levels of this {_TITLE} VAE do not fit each other. {EXPECTED}")
    matched = all(entered[i] == widths[min(i + 1, levels - 1)] for i in range(len(made)))
    return widths, depth, tuple(many // few for few, many in made), matched


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    del kind
    widths, depth, places, matched = _levels(shapes)
    return {
        "in_channels": convolution(shapes, "encoder.conv_in.conv.weight", _TITLE)[1],
        "out_channels": convolution(shapes, "decoder.conv_out.conv.weight", _TITLE)[0],
        "latent_channels": convolution(shapes, "decoder.conv_in.conv.weight", _TITLE)[1],
        "block_out_channels": list(widths),
        "layers_per_block": depth,
        "spatial_compression_ratio": 2 ** len(places),
        "temporal_compression_ratio": 2 ** sum(one == _PLACES_IN_TIME for one in places),
        "downsample_match_channel": matched,
        "upsample_match_channel": matched,
    }


_PLACES_IN_TIME = 8
"""Of a level that halves time, too: two frames of two by two elements."""


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    return Architecture(
        family="hunyuan15",
        block_out_channels=tuple(facts["block_out_channels"]),
        layers_per_block=facts["layers_per_block"],
        latent_channels=facts["latent_channels"],
        in_channels=facts["in_channels"],
        out_channels=facts["out_channels"],
        norm_num_groups=None,
        spatial_compression_ratio=facts["spatial_compression_ratio"],
        temporal_compression_ratio=facts["temporal_compression_ratio"],
    )


HUNYUAN_1_5_KEYS = Keys(
    family="hunyuan15",
    title=_TITLE,
    classes=("AutoencoderKLHunyuanVideo15",),
    needs="0.36",
    marks=re.compile(
        r"decoder\.(?:mid\.attn_1\.norm\.gamma|mid_block\.attentions\.0\.to_q\.weight)"
    ),
    others=re.compile(  # attention after norms of groups, as HunyuanVideo 1.0 and pictures have it
        r"decoder\.mid_block\.attentions\.0\.group_norm\.weight"
    ),
    parts=("encoder.", "decoder."),
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("in_channels", "out_channels", "latent_channels", "block_out_channels"),
            *("layers_per_block", "spatial_compression_ratio", "temporal_compression_ratio"),
        )
    ),
    architecture=_architecture,
)
