"""How do files hold a VAE of Mochi?

1. Under diffusers' names, or under the authors', which ComfyUI's file has as well.
2. The authors keep queries, keys and values in one layer (`fused`), and all parts of an encoder in
   one list, where those that halve something hold lists of their own.
3. Any width and depth is read off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shapes, count
from .latent_statistics import MOCHI

_TITLE = "Mochi"
_GROUPS = 32
_WAVES = 5  # channels for each of a pixel's: itself, two sines, two cosines

_RESNET = {"0": "norm1.norm_layer", "2": "conv1.conv", "3": "norm2.norm_layer", "5": "conv2.conv"}
_ENDS = {
    "encoder.layers.0": "encoder.proj_in",
    "encoder.output_norm": "encoder.norm_out.norm_layer",
    "encoder.output_proj": "encoder.proj_out",
    "decoder.blocks.0.0": "decoder.conv_in",
    "decoder.output_proj": "decoder.proj_out",
}
_AUTHORS = re.compile(r"(encoder|decoder)\.(?:layers|blocks)\.(\d+)\.(?:(layers|blocks)\.)?(.+)")


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(name.startswith("decoder.blocks.") for name in names):
        return {name: name for name in names}
    lists = {
        int(hit[1])
        for name in names
        if (hit := re.match(r"encoder\.layers\.(\d+)\.layers\.", name))
    }
    first, last = min(lists, default=0), max(lists, default=0)
    blocks = count(names, r"decoder\.blocks\.(\d+)\.")
    return {name: _diffusers_name(name, (first, last, blocks - 1)) for name in names}


def _diffusers_name(name: str, ends: tuple[int, int, int]) -> str:
    """ends: the first and the last list of an encoder, and the last of a decoder."""
    first, last, final = ends
    stem, _, kind = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    hit = _AUTHORS.fullmatch(name)
    if hit is None:
        return name
    coder, at, nested, rest = hit[1], int(hit[2]), hit[3], hit[4]
    if coder == "encoder":
        if nested:
            part, _, inner = rest.partition(".")
            if part == "0":
                return f"encoder.down_blocks.{at - first}.conv_in.conv.{inner}"
            return _in_block(f"encoder.down_blocks.{at - first}", int(part) - 1, inner)
        early = at < first
        block = "encoder.block_in" if early else "encoder.block_out"
        return _in_block(block, at - (1 if early else last + 1), rest)
    if nested:
        part, _, inner = rest.partition(".")
        return _in_block(f"decoder.up_blocks.{at - 1}", int(part), inner)
    if rest.startswith("proj."):
        return f"decoder.up_blocks.{at - 1}.{rest}"
    part, _, inner = rest.partition(".")
    block, skipped = ("decoder.block_in", 1) if at == 0 else ("decoder.block_out", 0)
    return _in_block(block, int(part) - skipped, inner)


def _in_block(block: str, index: int, rest: str) -> str:
    """A name in a resnet, or in the attention after it."""
    for stem, ours in (
        ("attn_block.norm.", f"norms.{index}.norm_layer."),
        ("attn_block.attn.qkv.", f"attentions.{index}.to_qkv."),
        ("attn_block.attn.out.", f"attentions.{index}.to_out.0."),
    ):
        if rest.startswith(stem):
            return f"{block}.{ours}{rest.removeprefix(stem)}"
    hit = re.fullmatch(r"stack\.([0235])\.(\w+)", rest)
    return f"{block}.resnets.{index}.{_RESNET[hit[1]]}.{hit[2]}" if hit else f"{block}.{index}.{rest}"


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None:
        raise LoadError(f"this {_TITLE} VAE is incomplete: {name} is missing. {EXPECTED}")
    return shape


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    if not any(name.startswith("encoder.") for name in shapes):
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    levels = range(count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    downs = [_shape(shapes, f"encoder.down_blocks.{i}.conv_in.conv.weight") for i in levels]
    ups = [_shape(shapes, f"decoder.up_blocks.{i}.proj.weight") for i in levels]
    ins, read = _shape(shapes, "encoder.proj_in.weight")
    inner = [
        count(shapes, rf"encoder\.{block}\.resnets\.(\d+)\.")
        for block in ("block_in", *(rf"down_blocks\.{i}" for i in levels), "block_out")
    ]
    attends = [
        f"encoder.{block}.norms.0.norm_layer.weight" in shapes
        for block in ("block_in", *(f"down_blocks.{i}" for i in levels), "block_out")
    ]
    widths = (ins, *(shape[0] for shape in downs))
    out_channels, last = _shape(shapes, "decoder.proj_out.weight")
    wide, latent_channels, *_ = _shape(shapes, "decoder.conv_in.weight")
    if any(width % _GROUPS for width in (*widths, wide, last)):
        raise LoadError(
            f"channels of a {_TITLE} VAE are multiples of {_GROUPS}; its encoder has"
            f" {list(widths)}. {EXPECTED}"
        )
    facts = {
        "in_channels": read,
        "out_channels": out_channels,
        "encoder_block_out_channels": list(widths),
        "decoder_block_out_channels": [last, *(shape[1] for shape in reversed(ups))],
        "latent_channels": latent_channels,
        "layers_per_block": inner,
        "temporal_expansions": [shape[2] for shape in downs],
        "spatial_expansions": [shape[3] for shape in downs],
        "add_attention_block": attends,
    }
    if latent_channels == len(MOCHI.mean):
        facts |= {"latents_mean": list(MOCHI.mean), "latents_std": list(MOCHI.std)}
    else:
        facts |= {"latents_mean": [0.0] * latent_channels, "latents_std": [1.0] * latent_channels}
    return facts


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, "")
    px = frames = 1
    for side, run in zip(facts["spatial_expansions"], facts["temporal_expansions"], strict=True):
        px, frames = px * side, frames * run
    return Architecture(
        family="mochi",
        block_out_channels=tuple(facts["encoder_block_out_channels"]),
        layers_per_block=facts["layers_per_block"][0],
        latent_channels=facts["latent_channels"],
        in_channels=facts["in_channels"] // _WAVES,
        out_channels=facts["out_channels"],
        norm_num_groups=_GROUPS,
        spatial_compression_ratio=px,
        temporal_compression_ratio=frames,
        parameters=0,
        dtypes=(),
    )


MOCHI_KEYS = Keys(
    family="mochi",
    title=_TITLE,
    classes=("AutoencoderKLMochi",),
    needs="0.32",
    marks=re.compile(
        r"decoder\.(?:blocks\.0\.1\.stack\.2|block_in\.resnets\.0\.conv1\.conv)\.weight"
    ),
    others=None,
    parts=("encoder.", "decoder."),
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("encoder_block_out_channels", "decoder_block_out_channels", "latent_channels"),
            *("layers_per_block", "temporal_expansions", "spatial_expansions", "in_channels"),
            *("add_attention_block", "out_channels"),
        )
    ),
    architecture=_architecture,
    fused=("to_qkv", ("to_q", "to_k", "to_v")),
)
