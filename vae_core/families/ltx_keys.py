"""How do files hold a VAE of LTX-Video or LTX-2?

1. Under the authors' names, which ComfyUI's files have as well, or under diffusers'. The authors
   keep the parts of a coder in one list, in the order in which they are run; diffusers has levels.
2. Two of diffusers' classes hold them: that of LTX-2 where the network is one of its kind, else
   that of LTX-Video.
3. Widths, depths and how levels change sizes are read off the shapes. What they do not show, the
   metadata of the authors' files say: whether the decoder looks ahead, and what it sees around the
   picture. Without those it is as the authors' code has it by default: it does, and a mirror.

Statistics of latents lie beside the weights, under names of their own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from math import prod
from typing import Any, cast

from ..errors import LoadError
from .keys import EXPECTED, Architecture, Keys, Shape, Shapes, convolution, count

_TOLD = "decoder.timestep_scale_multiplier"
"""One number, of decoders that are told of noise."""
_TITLE = "LTX"
_SECOND, _FIRST = "AutoencoderKLLTX2Video", "AutoencoderKLLTXVideo"
_PATCH_PX = 4
_STATISTICS = {"mean-of-means": "latents_mean", "std-of-means": "latents_std"}
_FACTORS = {2: "temporal", 4: "spatial", 8: "spatiotemporal"}
"""By the number of places that are gathered or spread: what they are of."""

_PART = re.compile(r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(.+)")
_RANKS = {
    "encoder": {"resnets": 0, "downsamplers.0": 1, "conv_out": 2},
    "decoder": {"conv_in": 0, "upsamplers.0": 1, "resnets": 2},
}
"""In which order the parts of a level come."""


def _translate(names: Collection[str]) -> dict[str, str]:
    if not any(".res_blocks." in name for name in names):
        return {name: name for name in names}
    places = {way: _places(way, names) for way in _RANKS}
    found: dict[str, str] = {}
    for name in names:
        own = _diffusers_name(name, places)
        if own is not None:
            found[name] = own
    return found


def _places(way: str, names: Collection[str]) -> dict[int, str]:
    """Where diffusers has each part of the authors' list, as a path in the coder."""
    kinds: dict[int, str] = {}
    for name in names:
        hit = _PART.match(name)
        if hit and hit[1] == way:
            kinds[int(hit[2])] = _kind(way, hit[3])
    order = sorted(kinds)
    middle = next(iter(order[::-1] if way == "encoder" else order), None)
    levels = "down_blocks" if way == "encoder" else "up_blocks"
    found, level, rank = {middle: "mid_block"} if middle is not None else {}, 0, -1
    for index in order:
        if index == middle:
            continue
        here = _RANKS[way][kinds[index]]
        if here <= rank:
            level += 1
        rank = here
        part = "" if kinds[index] == "resnets" else f".{kinds[index]}"
        found[index] = f"{levels}.{level}{part}"
    return found


def _kind(way: str, rest: str) -> str:
    """What a part is, by a name within it."""
    if rest.startswith(("res_blocks.", "time_embedder.")):
        return "resnets"
    if rest.startswith("conv."):
        return "downsamplers.0" if way == "encoder" else "upsamplers.0"
    return "conv_out" if way == "encoder" else "conv_in"


def _diffusers_name(name: str, places: Mapping[str, Mapping[int, str]]) -> str | None:
    """diffusers' name for one of the authors'; None for what it has none for."""
    if name.startswith("per_channel_statistics."):
        return _STATISTICS.get(name.removeprefix("per_channel_statistics."))
    hit = _PART.match(name)
    if hit:
        way, index, rest = hit[1], int(hit[2]), hit[3]
        rest = rest.replace("res_blocks.", "resnets.").replace("norm3.norm.", "norm3.")
        rest = re.sub(r"conv_shortcut\.(?=weight|bias)", "conv_shortcut.conv.", rest)
        return f"{way}.{places[way][index]}.{rest}"
    return re.sub(r"(?<=decoder\.)last_(?=time_embedder|scale_shift_table)", "", name)


def _kind_of_class(shapes: Shapes) -> str:
    """Which of the classes holds a network of these shapes."""
    base = convolution(shapes, "encoder.conv_in.conv.weight", _TITLE)[0]
    latents = convolution(shapes, "decoder.conv_in.conv.weight", _TITLE)[1]
    others = any("conv_shortcut" in name or "per_channel_scale" in name for name in shapes)
    return _FIRST if others or base != latents else _SECOND


def _channels(shapes: Shapes, path: str) -> int:
    return convolution(shapes, f"{path}.resnets.0.conv1.conv.weight", _TITLE)[0]


def _depths(shapes: Shapes, coder: str, levels: str) -> tuple[int, list[int], int]:
    """Levels, resnets in each of them, and in the middle.

    Raises `LoadError` where there is no level.
    """
    number = count(shapes, rf"{coder}\.{levels}\.(\d+)\.")
    middle = count(shapes, rf"{coder}\.mid_block\.resnets\.(\d+)\.")
    if not number or not middle:
        raise LoadError(f"this {_TITLE} VAE is incomplete: its {coder} is missing. {EXPECTED}")
    path = rf"{coder}\.{levels}\.%d\.resnets\.(\d+)\."
    return number, [count(shapes, path % level) for level in range(number)], middle


def _sampler(shapes: Shapes, path: str) -> Shape | None:
    """The shape of the convolution of a level's sampler; None where it has none."""
    return shapes.get(f"{path}.conv.conv.weight") or shapes.get(f"{path}.conv.weight")


def _encoder(shapes: Shapes, kind: str) -> dict[str, Any]:
    number, depths, middle = _depths(shapes, "encoder", "down_blocks")
    first = convolution(shapes, "encoder.conv_in.conv.weight", _TITLE)
    paths = [f"encoder.down_blocks.{level}" for level in range(number)]
    inner = [_channels(shapes, path) for path in (*paths, "encoder.mid_block")]
    samplers = [_sampler(shapes, f"{path}.downsamplers.0") for path in paths]
    gathers = [f"{path}.downsamplers.0.conv.conv.weight" in shapes for path in paths]
    types = [
        _FACTORS.get(after // shape[0], "conv") if gather and shape else "conv"
        for gather, shape, after in zip(gathers, samplers, inner[1:], strict=True)
    ]
    facts: dict[str, Any] = {
        "in_channels": first[1] // _PATCH_PX**2,
        "layers_per_block": [*depths, middle],
        "spatio_temporal_scaling": [shape is not None for shape in samplers],
        "downsample_type": types,
    }
    if any(gathers):
        widths = inner[1:] if kind == _SECOND else inner
        block = "LTX2VideoDownBlock3D" if kind == _SECOND else "LTXVideo095DownBlock3D"
    else:
        widths, block = inner[:-1], "LTXVideoDownBlock3D"
    return facts | {"block_out_channels": widths, "down_block_types": [block] * number}


def _decoder(shapes: Shapes, kind: str) -> dict[str, Any]:
    number, depths, middle = _depths(shapes, "decoder", "up_blocks")
    paths = [f"decoder.up_blocks.{level}" for level in range(number)]
    made = [_channels(shapes, path) for path in paths]
    samplers = [_sampler(shapes, f"{path}.upsamplers.0") for path in paths]
    factors = [
        1 if shape is None else shape[1] // after
        for shape, after in zip(samplers, made, strict=True)
    ]
    noise = [
        f"{path}.resnets.0.per_channel_scale1" in shapes for path in ("decoder.mid_block", *paths)
    ]
    facts: dict[str, Any] = {
        "decoder_layers_per_block": [middle, *depths][::-1],
        "decoder_block_out_channels": [c * f for c, f in zip(made, factors, strict=True)][::-1],
        "decoder_spatio_temporal_scaling": [shape is not None for shape in samplers][::-1],
        "decoder_inject_noise": noise[::-1],
        "upsample_factor": factors[::-1],
        "upsample_residual": [factor > 1 for factor in factors][::-1],
        "timestep_conditioning": _TOLD in shapes,
    }
    if kind == _SECOND:
        types = (
            "spatiotemporal" if shape is None else _FACTORS.get(shape[0] // after, "spatiotemporal")
            for shape, after in zip(samplers, made, strict=True)
        )
        facts["upsample_type"] = [*types][::-1]
    return facts


def _facts(shapes: Shapes, kind: str) -> dict[str, Any]:
    kind = kind if kind in (_FIRST, _SECOND) else _kind_of_class(shapes)
    latents = convolution(shapes, "decoder.conv_in.conv.weight", _TITLE)[1]
    out = convolution(shapes, "decoder.conv_out.conv.weight", _TITLE)[0]
    facts: dict[str, Any] = {
        "latent_channels": latents,
        "out_channels": out // _PATCH_PX**2,
        "patch_size": _PATCH_PX,
    }
    facts |= _encoder(shapes, kind) | _decoder(shapes, kind)
    facts["decoder_causal"] = False
    if kind == _SECOND:
        facts["decoder_spatial_padding_mode"] = "reflect"
    return facts


def _architecture(shapes: Shapes, config: Mapping[str, Any]) -> Architecture:
    facts = _facts(shapes, str(config.get("_class_name")))
    spatial, temporal = _ratios(shapes, facts)
    return Architecture(
        family="ltx",
        block_out_channels=tuple(facts["block_out_channels"]),
        layers_per_block=facts["layers_per_block"][0],
        latent_channels=facts["latent_channels"],
        in_channels=facts["in_channels"],
        out_channels=facts["out_channels"],
        norm_num_groups=None,
        spatial_compression_ratio=spatial,
        temporal_compression_ratio=temporal,
    )


def _ratios(shapes: Shapes, facts: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels and sample frames for each element of the latents."""
    levels = zip(facts["downsample_type"], facts["spatio_temporal_scaling"], strict=True)
    kinds = [kind for kind, scales in levels if scales]
    spatial = prod(1 if kind == "temporal" else 2 for kind in kinds)
    return _PATCH_PX * spatial, prod(1 if kind == "spatial" else 2 for kind in kinds)


def _said(
    metadata: Mapping[str, str], names: Collection[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What an authors' file says beside its shapes, in its metadata or by being theirs.

    Raises `LoadError` for what is no JSON.
    """
    if not any(".res_blocks." in name for name in names):
        return {}
    config = _config_in(metadata)
    mode = config.get("spatial_padding_mode")
    found: dict[str, Any] = {
        "decoder_causal": bool(config.get("causal_decoder", False)),
        "decoder_spatial_padding_mode": mode or "reflect",
        "encoder_spatial_padding_mode": mode or "zeros",
    }
    residuals = _residuals(config.get("decoder_blocks") or config.get("blocks") or [])
    if len(residuals) == len(facts["upsample_residual"]):
        found["upsample_residual"] = residuals
    return found


def _config_in(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What metadata have of a VAE; nothing where they are silent."""
    try:
        said = json.loads(metadata.get("config", "{}")).get("vae")
    except (ValueError, AttributeError, RecursionError) as error:
        raise LoadError(f"the config in its metadata is no JSON ({error}). {EXPECTED}") from error
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def _residuals(blocks: list[Any]) -> list[bool]:
    """Whether each level of a decoder that changes sizes adds what it saw."""
    options = [block[1] for block in blocks if str(block[0]).startswith("compress")]
    return [isinstance(one, dict) and bool(cast("Any", one).get("residual")) for one in options]


def _settle(module: Any, facts: Mapping[str, Any]) -> None:
    """Give the convolutions what the class has no words for: what they see around the picture."""
    for name in ("encoder", "decoder"):
        mode = facts.get(f"{name}_spatial_padding_mode")
        for part in getattr(module, name).modules():
            if (
                mode
                and max(getattr(part, "padding", None) or (0,))
                and hasattr(part, "padding_mode")
            ):
                part.padding_mode = mode


LTX_KEYS = Keys(
    family="ltx",
    title=_TITLE,
    classes=(_SECOND, _FIRST),
    needs="0.37",
    marks=re.compile(r"decoder\.up_blocks\.0\.res_blocks\.0\.conv1\.conv\.weight|latents_mean"),
    others=re.compile(r"(?:encoder|decoder)\.(?:mid|down|up)\.(?:block_1|0\.block)\..+"),
    parts=("encoder.", "decoder.", "per_channel_statistics.", "latents_mean", "latents_std"),
    translate=_translate,
    facts=_facts,
    binding=frozenset(
        (
            *("block_out_channels", "decoder_block_out_channels", "layers_per_block"),
            *("decoder_layers_per_block", "latent_channels", "in_channels", "out_channels"),
            *("timestep_conditioning", "upsample_factor"),
        )
    ),
    architecture=_architecture,
    kind=_kind_of_class,
    said=_said,
    settle=_settle,
    scalars=frozenset((_TOLD,)),
)
