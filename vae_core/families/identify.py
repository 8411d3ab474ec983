"""Which network is it, by the first bytes, the class name, or the names and shapes of tensors?

1. Find the prefix under which a CogVideoX decoder's spatial norms stand (`conv_y.conv`: no other
   family names them so); what lies outside that prefix belongs to something else, and is left out.
2. Translate the original (SAT) names to diffusers' ones.
3. Read the architecture off the shapes.
4. Without such norms, or without tensors at all, say in words what it looks like instead.

Nothing here opens a file, holds a tensor or imports torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ..errors import LoadError

Shape = tuple[int, ...]

CLASS = "AutoencoderKLCogVideoX"
NORM_NUM_GROUPS = 32
"""GroupNorm's groups in every CogVideoX VAE; weights do not show the number."""

EXPECTED = (
    "Expected is a CogVideoX VAE: a diffusers folder (config.json and"
    " diffusion_pytorch_model.safetensors), a single file such as cogvideox_vae_bf16.safetensors,"
    " or the original 3d-vae.pt."
)
_TEMPORAL_COMPRESSION_RATIO = 4
_READABLE = frozenset(  # what shapes show of a config.json
    ("block_out_channels", "layers_per_block", "latent_channels", "in_channels", "out_channels")
)
_NAMES_SHOWN = 3
_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
_SPATIAL_NORM = re.compile(
    r"((?:.+?\.)?)decoder\.(?:.+\.)?norm(?:1|2|_out)\.conv_[yb]\.conv\.weight"
)

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


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers that fix a CogVideoX VAE.

    Invariants: block_out_channels is not empty, and norm_num_groups divides each of its entries.

    block_out_channels: channels of each level, from the widest picture to the narrowest.
    layers_per_block: resnets in an encoder level; a decoder level has one more.
    latent_channels: channels of the latents.
    in_channels, out_channels: channels of a sample frame, in and out.
    norm_num_groups: groups of every GroupNorm.
    temporal_compression_ratio: sample frames for each latent frame after the first.
    parameters: how many numbers the weights hold.
    dtypes: names of the stored dtypes ("bfloat16"), sorted; empty where only shapes were given.
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    in_channels: int
    out_channels: int
    norm_num_groups: int
    temporal_compression_ratio: int
    parameters: int
    dtypes: tuple[str, ...]


def architecture_of_state(
    state: Mapping[str, Any], norm_num_groups: int = NORM_NUM_GROUPS
) -> Architecture:
    """The architecture that the tensors of `state` spell out, by their shapes alone.

    state: name -> shape, tensor, or anything else with a `shape` (and a `dtype`, to be reported).
        Names are diffusers' or SAT's, under any one prefix; other networks may lie beside.
    norm_num_groups: cannot be read from shapes; 32 throughout this family.

    Raises `LoadError`: another network (and which), a part missing, or groups that do not divide
    the channels.
    """
    names = vae_names({name: _shape_of(value) for name, value in state.items()})
    shapes = {name: _shape_of(state[stored]) for name, stored in names.items()}
    resnets = "encoder.down_blocks.{}.resnets.0.conv1.conv.weight"
    levels = range(_count(shapes, r"encoder\.down_blocks\.(\d+)\."))
    widths = tuple(_conv(shapes, resnets.format(level))[0] for level in levels)
    _check_groups(widths, norm_num_groups)
    return Architecture(
        block_out_channels=widths,
        layers_per_block=_count(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        latent_channels=_conv(shapes, "decoder.conv_in.conv.weight")[1],
        in_channels=_conv(shapes, "encoder.conv_in.conv.weight")[1],
        out_channels=_conv(shapes, "decoder.conv_out.conv.weight")[0],
        norm_num_groups=norm_num_groups,
        temporal_compression_ratio=_TEMPORAL_COMPRESSION_RATIO,
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        dtypes=_dtypes_of([state[stored] for stored in names.values()]),
    )


def architecture_of_config(config: Mapping[str, Any], state: Mapping[str, Any]) -> Architecture:
    """`architecture_of_state`, completed by a config.json; `LoadError` where they contradict."""
    groups = config.get("norm_num_groups", NORM_NUM_GROUPS)
    if not isinstance(groups, int):
        raise LoadError(f"norm_num_groups in config.json must be a whole number; it is {groups!r}.")
    architecture = architecture_of_state(state, groups)
    wrong: list[str] = []
    for name in _READABLE & config.keys():
        said, shown = config[name], getattr(architecture, name)
        if (tuple(cast("list[int]", said)) if isinstance(said, list) else said) != shown:
            wrong.append(f"{name} {said} against {shown}")
    if wrong:
        raise LoadError(
            f"config.json contradicts the weights: {'; '.join(sorted(wrong))}. Put the config.json"
            " that came with the weights beside them, or give the file of weights itself."
        )
    ratio = config.get("temporal_compression_ratio", architecture.temporal_compression_ratio)
    return replace(architecture, temporal_compression_ratio=ratio)


def config_of(architecture: Architecture, names: Collection[str]) -> dict[str, Any]:
    """The part of a config.json that the weights show, for a VAE with tensors of these names."""
    levels = len(architecture.block_out_channels)
    return {name: getattr(architecture, name) for name in _READABLE} | {
        "down_block_types": ("CogVideoXDownBlock3D",) * levels,
        "up_block_types": ("CogVideoXUpBlock3D",) * levels,
        "use_quant_conv": "quant_conv.weight" in names,
        "use_post_quant_conv": "post_quant_conv.weight" in names,
    }


def scaling_factor_of(config: Mapping[str, Any]) -> float | None:
    """The factor on latents that a config.json gives; None where it gives none."""
    value = config.get("scaling_factor")
    if value is None or (isinstance(value, int | float) and 0 < value < math.inf):
        return None if value is None else float(value)
    raise LoadError(f"scaling_factor in config.json must be a positive number; it is {value!r}.")


def _shape_of(value: object) -> Shape:
    return tuple(cast("Sequence[int]", getattr(value, "shape", value)))


def _dtypes_of(values: Sequence[object]) -> tuple[str, ...]:
    dtypes = {str(getattr(value, "dtype", "")).removeprefix("torch.") for value in values}
    return tuple(sorted(dtypes - {""}))


def _count(names: Collection[str], pattern: str) -> int:
    """How many different numbers stand in the pattern's group; never more than there are names."""
    hits = (re.match(pattern, name) for name in names)
    return len({hit.group(1) for hit in hits if hit})


def _conv(shapes: Mapping[str, Shape], name: str) -> Shape:
    """The shape [out, in, t, h, w] of a 3D convolution's weight."""
    shape = shapes.get(name)
    if shape is None:
        raise LoadError(f"this CogVideoX VAE is incomplete: {name} is missing. {EXPECTED}")
    if len(shape) != 5:
        raise LoadError(f"{name} must be a 3D convolution's; it has shape {shape}. {EXPECTED}")
    return shape


def _check_groups(widths: tuple[int, ...], groups: int) -> None:
    if not widths:
        raise LoadError(f"this CogVideoX VAE is incomplete: its encoder is missing. {EXPECTED}")
    if groups < 1 or any(width % groups for width in widths):
        raise LoadError(
            f"GroupNorm's {groups} groups must divide the channels of every level; they are"
            f" {widths}. Put a config.json with the right norm_num_groups beside the file."
        )


def check_shapes(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raise `LoadError`, with some names and all counts, unless both are the same."""
    common = [name for name in wanted if name in found]
    faults = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} {found[name]} instead of {wanted[name]}"
            for name in common
            if found[name] != wanted[name]
        ],
    }
    told = [f"{len(names)} {words} ({listed(names)})" for words, names in faults.items() if names]
    if told:
        raise LoadError(
            f"of the {len(wanted)} tensors of this CogVideoX VAE, {'; '.join(told)}. {EXPECTED}"
        )


def vae_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """diffusers' name -> name in the file, of the one CogVideoX VAE among `shapes`.

    Raises `LoadError` where there is none (with what there is instead), more than one, or one
    tensor under two names.
    """
    prefix = _prefix_of(shapes)
    own = [name for name in shapes if name.startswith(tuple(prefix + part for part in _PARTS))]
    levels = _count([name.removeprefix(prefix) for name in own], r"decoder\.up\.(\d+)\.")
    names: dict[str, str] = {}
    for stored in own:
        name = _diffusers_name(stored.removeprefix(prefix), levels)
        if name in names:
            raise LoadError(f"{names[name]} and {stored} are both the tensor {name}. {EXPECTED}")
        names[name] = stored
    return names


def _prefix_of(shapes: Mapping[str, Shape]) -> str:
    hits = (_SPATIAL_NORM.fullmatch(name) for name in shapes)
    prefixes = list(dict.fromkeys(hit.group(1) for hit in hits if hit))
    if not prefixes:
        raise LoadError(
            f"this looks like {looks_like(shapes)} ({len(shapes)} tensors: {listed(shapes)})."
            f" {EXPECTED}"
        )
    if len(prefixes) > 1:
        raise LoadError(
            f"this holds {len(prefixes)} CogVideoX VAEs, under the prefixes {prefixes}; one was"
            " expected. Save the one that you want to a file of its own."
        )
    return prefixes[0]


def _diffusers_name(name: str, up_levels: int) -> str:
    name = _SAT_UP.sub(lambda hit: f"decoder.up_blocks.{up_levels - 1 - int(hit[1])}.", name)
    for pattern, replacement in _SAT_TO_DIFFUSERS:
        name = pattern.sub(replacement, name)
    return name


def listed(names: Collection[str]) -> str:
    """A few of `names`, and how many more there are."""
    shown = ", ".join(list(names)[:_NAMES_SHOWN]) or "nothing"
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


_LDM_IMAGE = (r"encoder\.down\.0\.block\.\d+\.conv1\.weight", 4)
_DIFFUSERS_IMAGE = (r"encoder\.down_blocks\.\d+\.resnets\.\d+\.conv1\.weight", 4)
_CAUSAL = (r"encoder\.down(_blocks)?\.\d+\.(resnets|block)\.\d+\.conv1\.conv\.weight", 5)
_TEXT = r"^shared\.weight|encoder\.block\.\d+\.layer\.|text_model\.|\.self_attn\.q_proj\."
_TRANSFORMER = (
    r"transformer_blocks\.\d+\.|(^|\.)(double_|single_)?blocks\.\d+\.|^model\.diffusion_model\."
    r"|transformer\.layers\.\d+\."
)

# What it looks like <- marks that must all occur: a pattern in the names, and the dimensions of
# such a tensor or None. The first fit wins, so narrow families stand before broad ones.
_FAMILIES: tuple[tuple[str, tuple[tuple[str, int | None], ...]], ...] = (
    ("a LoRA", ((r"lora_(A|B|up|down)|^lora_.*\.alpha$", None),)),
    ("a whole image checkpoint", ((r"^model\.diffusion_model\.", None), _LDM_IMAGE)),
    ("a MoVQ image VAE (Kandinsky)", ((r"norm\w*\.conv_y\.weight", 4),)),
    ("a HunyuanVideo 1.5 VAE", (_CAUSAL, (r"norm1\.gamma$", None))),
    ("a Wan (or Qwen-Image) VAE", ((r"(encoder|decoder)\..*\.gamma$", None),)),
    ("a HunyuanVideo VAE", (_CAUSAL, (r"\.mid(_block\.attentions\.|\.attn_1\.)", None))),
    ("an LTX-Video VAE", ((r"per_channel_statistics|latents_mean$", None), (r"conv_in\.conv", 5))),
    ("a Mochi VAE", ((r"\.block_in\.resnets\.|blocks\.\d+\.blocks\.\d+\.stack\.", None),)),
    ("an Allegro VAE", ((r"coder\.temp_conv_(in|out)\.", None),)),
    ("an image VAE (2D convolutions, diffusers' names)", (_DIFFUSERS_IMAGE,)),
    ("an image VAE (2D convolutions, the original names)", (_LDM_IMAGE,)),
    ("a tiny autoencoder (TAESD)", ((r"(encoder|decoder)\.(layers\.)?\d+\..*weight$", 4),)),
    ("the encoder half of a CogVideoX VAE", (_CAUSAL,)),
    ("a video VAE of another family", ((r"(encoder|decoder)\..*weight$", 5),)),
    ("a text encoder", ((_TEXT, None),)),
    ("a diffusion U-Net", ((r"input_blocks\.\d+\.|down_blocks\.\d+\.attentions\.", None),)),
    ("a diffusion transformer without a VAE", ((_TRANSFORMER, None),)),
)


def looks_like(shapes: Mapping[str, Shape]) -> str:
    """Words for the network, no CogVideoX VAE, that tensors of these names and shapes belong to."""

    def occurs(pattern: str, dims: int | None) -> bool:
        sized = (name for name, shape in shapes.items() if dims is None or dims == len(shape))
        return any(re.search(pattern, name) for name in sized)

    fits = (words for words, marks in _FAMILIES if all(occurs(*mark) for mark in marks))
    return next(fits, "a network of no family that is known here")


_CLASSES = (
    (r"^AutoencoderKLWan$", "the Wan VAE"),
    (r"^AutoencoderKLHunyuan", "a Hunyuan VAE"),
    (r"^AutoencoderKLLTX", "an LTX-Video VAE"),
    (r"^AutoencoderKLMochi$", "the Mochi VAE"),
    (r"^AutoencoderKLQwenImage$", "the Qwen-Image VAE"),
    (r"^(AutoencoderKL|AsymmetricAutoencoderKL|AutoencoderDC|VQModel)$", "an image VAE"),
    (r"^AutoencoderTiny$", "a tiny image autoencoder"),
    (r"^Autoencoder", "an autoencoder of another family"),
    (r"Transformer", "a diffusion transformer"),
    (r"UNet", "a diffusion U-Net"),
    (r"T5|CLIP|Text|Llama|Qwen|ForCausalLM", "a text encoder"),
)


def check_class(config: Mapping[str, Any]) -> None:
    """Raise `LoadError`, with what it is instead, unless a config.json is a CogVideoX VAE's."""
    name = config.get("_class_name") or config.get("architectures") or "no class"
    if name != CLASS:
        fits = (words for pattern, words in _CLASSES if re.search(pattern, str(name)))
        raise LoadError(
            f"config.json names {name}, {next(fits, 'another network')}; {CLASS} was expected."
            " In a CogVideoX pipeline it is in the folder vae/."
        )


_MAGIC = (
    (rb"GGUF", "a GGUF file (quantised weights of a language or diffusion model)"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", "an archive; unpack it first"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"\x93NUMPY", "a numpy array"),
    (rb"\x89PNG|\xff\xd8\xff", "a picture"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page, perhaps one that asks for a login"),
    (rb"\s*[{\[]", "JSON text"),
)


def safetensors_data_bytes(header: bytes) -> int:
    """Size of the data that a safetensors header announces; 0 where it is broken."""
    try:
        entries = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
        return max((int(entry["data_offsets"][1]) for entry in entries), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 0


def bytes_look_like(head: bytes) -> str:
    """Words for a file, none of weights, by its first bytes."""
    pointer = re.match(rb"version https://git-lfs.*?\nsize (\d+)", head, re.DOTALL)
    if pointer:
        return f"a Git LFS pointer to {int(pointer[1])} bytes; run `git lfs pull` to get them"
    for magic, words in _MAGIC:
        if re.match(magic, head):
            return words
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return f"text that begins {head[:40].decode('ascii')!r}"
    return f"something unknown that begins with the bytes {head[:8].hex(' ')}"
