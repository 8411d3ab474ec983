"""Which network is it, by the first bytes, the class name, or the names and shapes of tensors?

1. Find the prefix under which a VAE stands whose names tell one of our families (`KEYS`); what lies
   outside that prefix belongs to something else, and is left out.
2. Translate its names to diffusers' ones, and read the architecture off the shapes.
3. Where there is no such VAE, or no tensor at all, say in words what it looks like instead.

Nothing here opens a file, holds a tensor or imports torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from ..errors import LoadError
from .cogvideox_keys import COGVIDEOX_KEYS, NORM_NUM_GROUPS
from .hunyuan15_keys import HUNYUAN_1_5_KEYS
from .hunyuan_keys import HUNYUAN_KEYS
from .keys import EXPECTED, Architecture, Keys, Shape, dtypes_of, listed, shape_of
from .ltx_keys import LTX_KEYS
from .mochi_keys import MOCHI_KEYS
from .seedvr2_keys import SEEDVR2_KEYS
from .wan22_keys import WAN_2_2_KEYS
from .wan_keys import WAN_KEYS

KEYS = (
    COGVIDEOX_KEYS,
    WAN_KEYS,
    WAN_2_2_KEYS,
    LTX_KEYS,
    HUNYUAN_KEYS,
    HUNYUAN_1_5_KEYS,
    SEEDVR2_KEYS,
    MOCHI_KEYS,
)
"""Of the families whose files are read."""


def architecture_of_state(
    state: Mapping[str, Any], norm_num_groups: int = NORM_NUM_GROUPS
) -> Architecture:
    """The architecture that the tensors of `state` spell out, by their shapes alone.

    state: name -> shape, tensor, or anything else with a `shape` (and a `dtype`, to be reported).
        Names are of any dialect, under any one prefix; other networks may lie beside.
    norm_num_groups: cannot be read from shapes; 32 in every CogVideoX VAE, nothing elsewhere.

    Raises `LoadError`: another network (and which), a part missing, or groups that do not divide
    the channels.
    """
    keys, names = vae_in({name: shape_of(value) for name, value in state.items()})
    own = {name: state[stored] for name, stored in names.items()}
    return architecture_of(keys, own, {"norm_num_groups": norm_num_groups})


def architecture_of(keys: Keys, own: Mapping[str, Any], config: Mapping[str, Any]) -> Architecture:
    """As `architecture_of_state`, for a VAE of a known family by diffusers' names.

    config: a config.json, empty without one. Raises `LoadError` where it contradicts the shapes.
    """
    shapes = {name: shape_of(value) for name, value in own.items()}
    _check_sizes(shapes, keys.scalars)
    architecture = keys.architecture(shapes, config)
    _check_config(keys.facts(shapes, str(config.get("_class_name"))), keys, config)
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return replace(architecture, parameters=parameters, dtypes=dtypes_of(list(own.values())))


def _check_sizes(shapes: Mapping[str, Shape], scalars: Collection[str]) -> None:
    sized = {name: shape for name, shape in shapes.items() if shape or name not in scalars}
    odd = [f"{name} {shape}" for name, shape in sized.items() if not shape or not all(shape)]
    if odd:
        raise LoadError(f"no network has tensors of such shapes: {listed(odd)}. {EXPECTED}")


def _check_config(facts: Mapping[str, Any], keys: Keys, config: Mapping[str, Any]) -> None:
    wrong: list[str] = []
    for name in sorted(keys.binding & facts.keys() & config.keys()):
        said, shown = _frozen(config[name]), _frozen(facts[name])
        if said != shown:
            wrong.append(f"{name} {config[name]} against {facts[name]}")
    if wrong:
        raise LoadError(
            f"config.json contradicts the weights: {'; '.join(wrong)}. Put the config.json"
            " that came with the weights beside them, or give the file of weights itself."
        )


def _frozen(value: object) -> object:
    """`value`, where it is a list as JSON has them a tuple."""
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


def vae_in(shapes: Mapping[str, Shape]) -> tuple[Keys, dict[str, str]]:
    """The family of the one VAE among `shapes`, and diffusers' name -> name in the file.

    Raises `LoadError` where there is none (with what there is instead), more than one, or one
    tensor under two names.
    """
    found = [(keys, prefix) for keys in KEYS for prefix in keys.prefixes(shapes)]
    if not found:
        raise LoadError(
            f"this looks like {looks_like(shapes)} ({len(shapes)} tensors: {listed(shapes)})."
            f" {EXPECTED}"
        )
    if len(found) > 1:
        titles = " and ".join(dict.fromkeys(keys.title for keys, _ in found))
        raise LoadError(
            f"this holds {len(found)} {titles} VAEs, under the prefixes"
            f" {[prefix for _, prefix in found]}; one was expected. Save the one that you want to a"
            " file of its own."
        )
    ((keys, prefix),) = found
    return keys, keys.names(shapes, prefix)


def scaling_factor_of(config: Mapping[str, Any]) -> float | None:
    """The factor on latents that a config.json gives; None where it gives none."""
    value = config.get("scaling_factor")
    if value is None or (isinstance(value, int | float) and 0 < value < math.inf):
        return None if value is None else float(value)
    raise LoadError(f"scaling_factor in config.json must be a positive number; it is {value!r}.")


_LDM_IMAGE = (r"encoder\.down\.0\.block\.\d+\.conv1\.weight", 4)
_DIFFUSERS_IMAGE = (r"encoder\.down_blocks\.\d+\.resnets\.\d+\.conv1\.weight", 4)
_CAUSAL = (r"encoder\.down(_blocks)?\.\d+\.(resnets|block)\.\d+\.conv1\.conv\.weight", 5)
_AUDIO = (r"per_channel_statistics|latents_mean$|vocoder\.", None)
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
    (
        "a HunyuanVideo 1.5 VAE without its decoder's middle",
        (_CAUSAL, (r"norm1\.gamma$", None)),
    ),
    (
        "a Wan 2.2 VAE without its decoder's first level",
        ((r"(up|down)samples\.\d+\.(up|down)samples\.|_blocks\.\d+\.upsampler\.", None),),
    ),
    (
        "a Wan 2.1 (or Qwen-Image) VAE without its decoder's middle",
        ((r"(encoder|decoder)\..*\.gamma$", None),),
    ),
    ("a HunyuanVideo VAE", (_CAUSAL, (r"\.mid(_block\.attentions\.|\.attn_1\.)", None))),
    (
        "the VAE of LTX-2.5, whose decoder is a diffusion model with attention",
        ((r"decoder\.conv_in_x_t\.weight", None),),
    ),
    (
        "the VAE of MiniMax H3, whose decoder is made for tiles and has no whole to be equal to",
        ((r"decoder\.transformer_blocks\.\d+\.scale1", None),),
    ),
    ("an audio VAE", ((r"vocoder\.|(encoder|decoder)\.(mid|up|down)\.\S*conv\.weight", 4), _AUDIO)),
    (
        "an LTX VAE without its decoder's first level",
        ((r"per_channel_statistics|latents_mean$", None), (r"conv_in\.conv", 5)),
    ),
    (
        "one half of a Mochi VAE; both are needed, under encoder. and decoder.",
        ((r"block_(in|out)\.resnets\.|(blocks|layers)\.\d+(\.\w+)*\.stack\.", None),),
    ),
    ("an Allegro VAE", ((r"coder\.temp_conv_(in|out)\.", None),)),
    ("an image VAE (2D convolutions, diffusers' names)", (_DIFFUSERS_IMAGE,)),
    ("an image VAE (2D convolutions, the original names)", (_LDM_IMAGE,)),
    ("a tiny autoencoder (TAESD)", ((r"(encoder|decoder)\.(layers\.)?\d+\..*weight$", 4),)),
    ("the encoder half of a CogVideoX VAE", (_CAUSAL,)),
    (
        "the encoder half of a SeedVR2 VAE",
        ((r"encoder\.down_blocks\.\d+\.resnets\.\d+\.conv1\.weight", 5),),
    ),
    ("a video VAE of another family", ((r"(encoder|decoder)\..*weight$", 5),)),
    ("a text encoder", ((_TEXT, None),)),
    ("a diffusion U-Net", ((r"input_blocks\.\d+\.|down_blocks\.\d+\.attentions\.", None),)),
    ("a diffusion transformer without a VAE", ((_TRANSFORMER, None),)),
)


def looks_like(shapes: Mapping[str, Shape]) -> str:
    """Words for the network, no VAE of ours, that tensors of these names and shapes belong to."""

    def occurs(pattern: str, dims: int | None) -> bool:
        sized = (name for name, shape in shapes.items() if dims is None or dims == len(shape))
        return any(re.search(pattern, name) for name in sized)

    fits = (words for words, marks in _FAMILIES if all(occurs(*mark) for mark in marks))
    return next(fits, "a network of no family that is known here")


_AUTOENCODER = "AutoencoderKL"
"""With what the names of diffusers' classes begin."""

_CLASSES = (
    (r"^AutoencoderKLHunyuan", "a Hunyuan VAE"),
    (r"^AutoencoderKLLTX2Audio", "the audio VAE of LTX-2"),
    (r"^(AutoencoderKL|AsymmetricAutoencoderKL|AutoencoderDC|VQModel)$", "an image VAE"),
    (r"^AutoencoderTiny$", "a tiny image autoencoder"),
    (r"^Autoencoder", "an autoencoder of another family"),
    (r"Transformer", "a diffusion transformer"),
    (r"UNet", "a diffusion U-Net"),
    (r"T5|CLIP|Text|Llama|Qwen|ForCausalLM", "a text encoder"),
)


def keys_of_class(config: Mapping[str, Any]) -> Keys:
    """The family that a config.json names by its class.

    Raises `LoadError`, with what it is instead, where the class is of none.
    """
    name = config.get("_class_name") or config.get("architectures") or "no class"
    found = next((keys for keys in KEYS if name in keys.classes and keys.told_by(config)), None)
    if found is not None:
        return found
    named = dict.fromkeys(one for keys in KEYS for one in keys.classes)
    *first, last = (one for one in named if one.startswith(_AUTOENCODER))
    fits = (words for pattern, words in _CLASSES if re.search(pattern, str(name)))
    raise LoadError(
        f"config.json names {name}, {next(fits, 'another network')}; {', '.join(first)} or {last}"
        " was expected. In a pipeline it is in the folder vae/."
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
