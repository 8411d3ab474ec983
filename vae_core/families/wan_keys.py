"""How do files hold a VAE of Wan 2.1, which is Qwen-Image's too?

1. Under the authors' names, which ComfyUI's files have as well, or under diffusers'.
2. The authors keep the parts of all levels in one list. In the encoder diffusers does so, too; in
   the decoder it has a list for each level, whose length the first resampling part shows.
3. Any width, depth and number of channels is read off the shapes.

Wan 2.2's names differ by a list within each level (`wan22_keys`), and are none of these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import count as counting
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shapes, convolution

_TITLE = "Wan 2.1"
_QWEN = "AutoencoderKLQwenImage"

_RESNET = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_ENDS = {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"}
_QUANT = {"conv1": "quant_conv", "conv2": "post_quant_conv"}

PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "conv1.", "conv2.")
"""With what names of tensors begin, in either dialect."""

_BEFORE = re.compile(r"conv[12](?=\.)")
_END = re.compile(r"(?<=coder\.)(?:conv1|head\.[02])(?=\.)")
_IN_MIDDLE = re.compile(r"(?<=coder\.)middle\.([012])(?=\.)")
_IN_RESNET = re.compile(r"(?:(?<=\.)residual\.[0236]|(?<=\.)shortcut)(?=\.)")
_DOWN = re.compile(r"(?<=encoder\.)downsamples(?=\.)")
_UP = re.compile(r"(?<=decoder\.)upsamples\.(\d+)(?=\.)")


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(name.startswith("decoder.middle.") for name in names):
        return {name: name for name in names}
    return {name: _diffusers_name(name, _parts_in_level(names)) for name in names}


def _parts_in_level(names: Collection[str]) -> int:
    """How many parts a decoder's level has, with the one that resamples; more than there are, where
    none does.
    """
    lists = (re.match(r"decoder\.upsamples\.(\d+)\.resample\.", name) for name in names)
    return min((int(hit[1]) + 1 for hit in lists if hit), default=len(names) + 1)


def _diffusers_name(name: str, parts: int) -> str:
    def leveled(hit: re.Match[str]) -> str:
        level, part = divmod(int(hit[1]), parts)
        return f"up_blocks.{level}." + ("upsamplers.0" if part == parts - 1 else f"resnets.{part}")

    part = _UP.sub(leveled, _DOWN.sub("down_blocks", diffusers_part(name)))
    return diffusers_end(name) or part


def diffusers_end(name: str) -> str | None:
    """diffusers' name of what lies between encoder and latents, or latents and decoder; None for
    anything else.
    """
    found = _BEFORE.match(name)
    return _QUANT[found[0]] + name[found.end() :] if found else None


def diffusers_part(name: str) -> str:
    """The authors' name of a tensor with diffusers' ones for all parts but the levels."""
    name = _END.sub(lambda hit: _ENDS[hit[0]], name)
    name = _IN_MIDDLE.sub(lambda hit: f"mid_block.{_MIDDLE[hit[1]]}", name)
    return _IN_RESNET.sub(lambda hit: _RESNET[hit[0]], name)


def _parts(shapes: Shapes) -> Iterator[str]:
    """The path of each part of the encoder's levels."""
    for i in counting():
        path = f"encoder.down_blocks.{i}"
        if not {f"{path}.resample.1.weight", f"{path}.conv1.weight"} & shapes.keys():
            return
        yield path


def _levels(shapes: Shapes) -> tuple[tuple[int, ...], int, tuple[bool, ...]]:
    """Channels of each level, resnets in each, and whether time is halved after each but the last.

    Raises `LoadError` where there is no level, or their lengths differ.
    """
    widths: list[list[int]] = [[]]
    timed: list[bool] = []
    for path in _parts(shapes):
        if f"{path}.resample.1.weight" in shapes:
            widths.append([])
            timed.append(f"{path}.time_conv.weight" in shapes)
        else:
            widths[-1].append(convolution(shapes, f"{path}.conv1.weight", _TITLE)[0])
    if not widths[0]:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    depths = {len(level) for level in widths}
    if len(depths) > 1 or 0 in depths:
        found = [len(level) for level in widths]
        raise LoadError(
            f"all levels of a {_TITLE} encoder have as many residual blocks; these have {found}."
            f" {EXPECTED}"
        )
    return tuple(level[-1] for level in widths), depths.pop(), tuple(timed)


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    widths, depth, timed = _levels(shapes)
    facts = channel_facts(shapes, widths, _TITLE)
    facts |= {"num_res_blocks": depth, "temperal_downsample": list(timed)}
    if facts["decoder_base_dim"] == facts["base_dim"]:
        del facts["decoder_base_dim"]
    if kind == _QWEN:
        facts["input_channels"] = facts["in_channels"]
        return {name: facts[name] for name in facts.keys() - _NOT_OF_QWEN}
    return facts


_NOT_OF_QWEN = {"in_channels", "out_channels", "decoder_base_dim"}


def channel_facts(shapes: Shapes, widths: tuple[int, ...], title: str) -> dict[str, Any]:
    """What a config.json says of channels, where the encoder's levels have `widths` of them.

    Raises `LoadError` where they are no multiples.
    """
    base, in_channels, *_ = convolution(shapes, "encoder.conv_in.weight", title)
    out_channels, head, *_ = convolution(shapes, "decoder.conv_out.weight", title)
    if any(width % base for width in widths) or head % (widths[0] // base):
        raise LoadError(
            f"the channels of every level must be a multiple of the first convolution's {base}; the"
            f" encoder's levels have {list(widths)}, the decoder ends in {head}. {EXPECTED}"
        )
    mult = [width // base for width in widths]
    return {
        "base_dim": base,
        "decoder_base_dim": head // mult[0],
        "dim_mult": mult,
        "z_dim": convolution(shapes, "decoder.conv_in.weight", title)[1],
        "in_channels": in_channels,
        "out_channels": out_channels,
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    widths, depth, timed = _levels(shapes)
    return Architecture(
        family="wan",
        block_out_channels=widths,
        layers_per_block=depth,
        latent_channels=facts["z_dim"],
        in_channels=facts["in_channels"],
        out_channels=facts["out_channels"],
        norm_num_groups=None,
        spatial_compression_ratio=2 ** len(timed),
        temporal_compression_ratio=2 ** sum(timed),
    )


WAN_KEYS = Keys(
    family="wan",
    title=_TITLE,
    classes=("AutoencoderKLWan", _QWEN),
    needs="0.33",
    marks=re.compile(r"decoder\.(?:middle\.1|mid_block\.attentions\.0)\.to_qkv\.weight"),
    others=re.compile(  # a list in each level, as Wan 2.2 has it
        r"(?:encoder\.downsamples\.\d+\.downsamples|encoder\.down_blocks\.\d+\.resnets"
        r"|decoder\.upsamples\.\d+\.upsamples|decoder\.up_blocks\.\d+\.upsampler)\..+"
    ),
    parts=PARTS,
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("base_dim", "dim_mult", "num_res_blocks", "temperal_downsample", "z_dim"),
            *("in_channels", "out_channels", "input_channels"),
        )
    ),
    architecture=_architecture,
    told_by=lambda config: not config.get("is_residual"),
)
