"""How do files hold a VAE of Wan 2.2 5B?

1. Under the authors' names, which ComfyUI's file has as well, or under diffusers', whose class is
   Wan 2.1's: its config.json says `is_residual`.
2. Each level is a list of its own: residual blocks, and after them what resamples.
3. Any width, depth and number of channels is read off the shapes. The first convolution sees
   squares of 2x2 pixels, so that it has four times the channels of a picture.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution, count
from .latent_statistics import WAN_2_2
from .wan_keys import PARTS, channel_facts, diffusers_end, diffusers_part

_TITLE = "Wan 2.2"
_PATCH_PX = 2

_LEVEL = re.compile(r"(?<=coder\.)(down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)(?=\.)")


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(name.startswith("decoder.middle.") for name in names):
        return {name: name for name in names}
    samplers = {hit[0] for name in names if (hit := _LEVEL.search(name)) and ".resample." in name}
    return {name: _diffusers_name(name, samplers) for name in names}


def _diffusers_name(name: str, samplers: set[str]) -> str:
    def leveled(hit: re.Match[str]) -> str:
        way, level, part = hit.groups()
        what = f"{way}sampler" if hit[0] in samplers else f"resnets.{part}"
        return f"{way}_blocks.{level}.{what}"

    return diffusers_end(name) or _LEVEL.sub(leveled, diffusers_part(name))


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], int, tuple[bool, ...]]:
    """Channels of each encoder level, resnets in it, and whether it halves time, for all of them
    but the last.

    Raises `LoadError` where there is no level.
    """
    levels = count(shapes, r"encoder\.down_blocks\.(\d+)\.")
    depth = count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    if not levels or not depth:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    path = "encoder.down_blocks.{}.{}.weight"
    widths = tuple(
        convolution(shapes, path.format(level, "resnets.0.conv1"), _TITLE)[0]
        for level in range(levels)
    )
    timed = (path.format(level, "downsampler.time_conv") in shapes for level in range(levels - 1))
    return widths, depth, tuple(timed)


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    widths, depth, timed = _levels(shapes)
    facts = channel_facts(shapes, widths, _TITLE)
    if facts["z_dim"] == len(WAN_2_2.mean):
        facts |= {"latents_mean": list(WAN_2_2.mean), "latents_std": list(WAN_2_2.std)}
    return facts | {
        "num_res_blocks": depth,
        "temperal_downsample": list(timed),
        "is_residual": True,
        "patch_size": _PATCH_PX,
        "scale_factor_spatial": _PATCH_PX * 2 ** len(timed),
        "scale_factor_temporal": 2 ** sum(timed),
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    widths, depth, _ = _levels(shapes)
    return Architecture(
        family="wan22",
        block_out_channels=widths,
        layers_per_block=depth,
        latent_channels=facts["z_dim"],
        in_channels=facts["in_channels"] // _PATCH_PX**2,
        out_channels=facts["out_channels"] // _PATCH_PX**2,
        norm_num_groups=None,
        spatial_compression_ratio=facts["scale_factor_spatial"],
        temporal_compression_ratio=facts["scale_factor_temporal"],
    )


WAN_2_2_KEYS = Keys(
    family="wan22",
    title=_TITLE,
    classes=("AutoencoderKLWan",),
    needs="0.35",
    marks=re.compile(
        r"decoder\.(?:upsamples\.0\.upsamples\.0\.residual\.2|up_blocks\.0\.upsampler\.resample\.1)"
        r"\.weight"
    ),
    others=None,
    parts=PARTS,
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("base_dim", "decoder_base_dim", "dim_mult", "num_res_blocks", "temperal_downsample"),
            *("z_dim", "in_channels", "out_channels", "is_residual", "patch_size"),
        )
    ),
    architecture=_architecture,
    told_by=lambda config: bool(config.get("is_residual")),
)
