"""How do files hold a VAE of SeedVR2?

Under the authors' names alone, which ComfyUI's file has as well. Any width and depth is read off
the shapes; diffusers has no class for it, so that the network is one of ours (`seedvr2_network`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution, count

_TITLE = "SeedVR2"
_GROUPS = 32


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], int, int]:
    """Channels of each encoder level, resnets in it, and how many levels halve the frames.

    Raises `LoadError` where there is no level, or one whose norms cannot have their groups.
    """
    levels = count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    depth = count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    if not levels or not depth:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    path = "encoder.down_blocks.{}.resnets.0.conv1.weight"
    widths = tuple(convolution(shapes, path.format(i), _TITLE)[0] for i in range(levels))
    if any(width % _GROUPS for width in widths):
        raise LoadError(
            f"channels of a {_TITLE} VAE are multiples of {_GROUPS}; its levels have"
            f" {list(widths)}. {EXPECTED}"
        )
    sampler = "encoder.down_blocks.{}.downsamplers.0.conv.weight"
    samplers = (shapes.get(sampler.format(i), (0,) * 5) for i in range(levels))
    return widths, depth, sum(len(shape) == 5 and shape[2] == 3 for shape in samplers)


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    widths, depth, timed = _levels(shapes)
    pictures = (
        convolution(shapes, "encoder.conv_in.weight", _TITLE)[1],
        convolution(shapes, "decoder.conv_out.weight", _TITLE)[0],
    )
    return {
        "block_out_channels": widths,
        "layers_per_block": depth,
        "latent_channels": convolution(shapes, "decoder.conv_in.weight", _TITLE)[1],
        "channels": pictures,
        "temporal_scale_num": timed,
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    widths = facts["block_out_channels"]
    return Architecture(
        family="seedvr2",
        block_out_channels=widths,
        layers_per_block=facts["layers_per_block"],
        latent_channels=facts["latent_channels"],
        in_channels=facts["channels"][0],
        out_channels=facts["channels"][1],
        norm_num_groups=_GROUPS,
        spatial_compression_ratio=2 ** (len(widths) - 1),
        temporal_compression_ratio=2 ** facts["temporal_scale_num"],
    )


SEEDVR2_KEYS = Keys(
    family="seedvr2",
    title=_TITLE,
    classes=("SeedVR2VAE",),
    needs="",
    home=f"{__package__}.seedvr2_network",
    marks=re.compile(r"decoder\.up_blocks\.0\.upsamplers\.0\.upscale_conv\.weight"),
    others=None,
    parts=("encoder.", "decoder."),
    translate=lambda names: {name: name for name in names},
    facts=_facts,
    binding=frozenset(),
    architecture=_architecture,
)
