"""How do files hold a VAE of Mochi?

1. Under the authors' names, which ComfyUI's file has as well, or under diffusers'. Either way they
   are loaded into the authors' network (`mochi_network`), by its names.
2. The authors keep queries, keys and values in one layer, diffusers in three; the network has what
   the file has.
3. Any width and depth is read off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shape, Shapes, count

_TITLE = "Mochi"
_GROUPS = 32
_WAVES = 5  # channels for each of a pixel's: itself, two sines, two cosines

_PARTS = {
    "norm1.norm_layer": "stack.0",
    "conv1.conv": "stack.2",
    "norm2.norm_layer": "stack.3",
    "conv2.conv": "stack.5",
}
_ENDS = {
    "encoder.proj_in": "encoder.layers.0",
    "encoder.norm_out.norm_layer": "encoder.output_norm",
    "encoder.proj_out": "encoder.output_proj",
    "decoder.conv_in": "decoder.blocks.0.0",
    "decoder.proj_out": "decoder.output_proj",
}
_BLOCK = re.compile(r"(encoder|decoder)\.(block_in|block_out|(?:down|up)_blocks\.\d+)\.(.+)")
_IN_BLOCK = re.compile(r"(resnets|norms|attentions)\.(\d+)\.(.+)")


def _translate(names: Collection[str]) -> dict[str, str]:
    if any(name.startswith("decoder.blocks.") for name in names):
        return {name: name for name in names}
    first = count(names, r"encoder\.block_in\.resnets\.(\d+)\.")
    levels = count(names, r"encoder\.down_blocks\.(\d+)\.")
    return {name: _authors_name(name, first, levels) for name in names}


def _authors_name(name: str, first: int, levels: int) -> str:
    """first: resnets of an encoder's first block. levels: after it."""
    stem, _, kind = name.rpartition(".")
    if stem in _ENDS:
        return f"{_ENDS[stem]}.{kind}"
    hit = _BLOCK.fullmatch(name)
    if hit is None:
        return name
    coder, block, rest = hit.groups()
    level = int(block.rpartition(".")[2]) if "." in block else None
    if coder == "encoder":
        shift = {"block_in": 1, "block_out": 1 + first + levels}.get(block, 1)
        where = "encoder.layers"
        where = where if level is None else f"{where}.{1 + first + level}.layers"
        if rest.startswith("conv_in.conv."):
            return f"{where}.0.{kind}"
    else:
        shift = 1 if block == "block_in" else 0
        at = {"block_in": 0, "block_out": 1 + levels}.get(block, 1 + (level or 0))
        where = f"decoder.blocks.{at}" + ("" if level is None else ".blocks")
        if rest.startswith("proj."):
            return f"decoder.blocks.{at}.{rest}"
    return _in_block(where, shift, rest)


def _in_block(where: str, shift: int, rest: str) -> str:
    """A name in a resnet, or in the attention after it. shift: how many parts stand before."""
    hit = _IN_BLOCK.fullmatch(rest)
    if hit is None:
        return f"{where}.{rest}"
    part, number, inner = hit.groups()
    at = f"{where}.{int(number) + shift}"
    if part == "norms":
        return f"{at}.attn_block.norm.{inner.removeprefix('norm_layer.')}"
    if part == "attentions":
        return f"{at}.attn_block.attn.{inner.replace('to_out.0.', 'out.')}"
    stem, _, kind = inner.rpartition(".")
    return f"{at}.{_PARTS.get(stem, stem)}.{kind}"


def _shape(shapes: Shapes, name: str, rank: int) -> Shape:
    shape = shapes.get(name)
    if shape is None:
        raise LoadError(f"this {_TITLE} VAE is incomplete: {name} is missing. {EXPECTED}")
    if len(shape) != rank:
        raise LoadError(f"{name} must have {rank} dimensions; it has shape {shape}. {EXPECTED}")
    return shape


def _numbers(shapes: Shapes, pattern: str) -> list[int]:
    """What stands in the pattern's group, each once, in order."""
    hits = (re.match(pattern, name) for name in shapes)
    return sorted({int(hit[1]) for hit in hits if hit})


def _encoder(shapes: Shapes) -> tuple[list[int], list[Shape], list[int], list[bool]]:
    """Numbers of the lists that are levels, shapes of their convolutions, resnets in each block,
    and whether these attend.
    """
    lists = _numbers(shapes, r"encoder\.layers\.(\d+)\.layers\.")
    plain = _numbers(shapes, r"encoder\.layers\.(\d+)\.stack\.")
    if not lists or not plain:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its encoder is missing. {EXPECTED}")
    early = [at for at in plain if at < lists[0]]
    late = [at for at in plain if at > lists[-1]]
    downs = [_shape(shapes, f"encoder.layers.{at}.layers.0.weight", 5) for at in lists]
    inner = [count(shapes, rf"encoder\.layers\.{at}\.layers\.(\d+)\.stack\.") for at in lists]
    firsts = [f"{at}" for at in early[:1]] + [f"{at}.layers.1" for at in lists]
    firsts += [f"{at}" for at in late[:1]]
    attends = [f"encoder.layers.{at}.attn_block.norm.weight" in shapes for at in firsts]
    return lists, downs, [len(early), *inner, len(late)], attends


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    del kind
    _, downs, resnets, attends = _encoder(shapes)
    first, read = _shape(shapes, "encoder.layers.0.weight", 2)
    out_channels, last = _shape(shapes, "decoder.output_proj.weight", 2)
    wide, latent_channels, *_ = _shape(shapes, "decoder.blocks.0.0.weight", 5)
    cells = [shape[2] * shape[3] * shape[4] for shape in reversed(downs)]
    ups = [
        _shape(shapes, f"decoder.blocks.{at + 1}.proj.weight", 2)[0] // cell
        for at, cell in enumerate(cells)
    ]
    widths = [first, *(shape[0] for shape in downs)]
    backwards = [last, *reversed(ups[:-1]), wide]
    if any(width % _GROUPS for width in (*widths, *backwards)):
        raise LoadError(
            f"channels of a {_TITLE} VAE are multiples of {_GROUPS}; its encoder has {widths}, its"
            f" decoder {backwards}. {EXPECTED}"
        )
    return {
        "in_channels": read,
        "out_channels": out_channels,
        "encoder_block_out_channels": widths,
        "decoder_block_out_channels": backwards,
        "latent_channels": latent_channels,
        "layers_per_block": resnets,
        "temporal_expansions": [shape[2] for shape in downs],
        "spatial_expansions": [shape[3] for shape in downs],
        "add_attention_block": attends,
        "fused": any(name.endswith(".attn.qkv.weight") for name in shapes),
    }


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    del config
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
    )


MOCHI_KEYS = Keys(
    family="mochi",
    title=_TITLE,
    classes=("MochiVAE", "AutoencoderKLMochi"),
    needs="",
    home=f"{__package__}.mochi_network",
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
)
