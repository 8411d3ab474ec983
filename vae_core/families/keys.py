"""How do files hold a family's VAE: under which names, in which shapes, with which config.json?

1. `Keys` is what a family says of its files; the `_keys` modules fill one in each.
2. `Architecture` has the numbers that fix a VAE of any family.
3. The functions read shapes by name, and say what is missing, unexpected or of another shape.

Nothing here opens a file, holds a tensor or imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..errors import LoadError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

EXPECTED = (
    "Expected is a VAE of CogVideoX, Wan 2.1 and Qwen-Image, Wan 2.2 5B, LTX-Video and LTX-2,"
    " HunyuanVideo 1.0, 1.5, SeedVR2 or Mochi: a diffusers folder (config.json and"
    " diffusion_pytorch_model.safetensors), a single file such as cogvideox_vae_bf16.safetensors,"
    " wan_2.1_vae.safetensors, wan2.2_vae.safetensors, hunyuan_video_vae_bf16.safetensors,"
    " hunyuanvideo15_vae_fp16.safetensors, seedvr2_ema_vae_fp16.safetensors or"
    " mochi_vae.safetensors, a checkpoint of LTX-2, or the original 3d-vae.pt,"
    " Wan2.1_VAE.pth or Wan2.2_VAE.pth."
)
DIFFUSERS = "diffusers"
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Architecture:
    """The numbers that fix a VAE.

    Invariants: block_out_channels is not empty, and norm_num_groups divides each of its entries.

    family: whose network it is.
    block_out_channels: channels of each level, from the widest picture to the narrowest.
    layers_per_block: resnets in an encoder level; a decoder level has one more.
    latent_channels: channels of the latents.
    in_channels, out_channels: channels of a sample frame, in and out.
    norm_num_groups: groups of every GroupNorm; None where norms are of single voxels.
    spatial_compression_ratio: pixels along a side of the picture for each one of the latents.
    temporal_compression_ratio: sample frames for each latent frame after the first.
    parameters: how many numbers the weights hold.
    dtypes: names of the stored dtypes ("bfloat16"), sorted; empty where only shapes were given.
    """

    family: str
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    in_channels: int
    out_channels: int
    norm_num_groups: int | None
    spatial_compression_ratio: int
    temporal_compression_ratio: int
    parameters: int = 0
    dtypes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Keys:
    """How files hold the VAEs of one family.

    family: its name. title: in a sentence, "CogVideoX".
    classes: that hold it, the usual one first. needs: the oldest diffusers with it. home: the
        module that has them.
    marks: what follows the prefix in a name that tells the family. others: in one that tells that
        it is another one all the same; None where there is none.
    parts: with what the names of its tensors begin, after the prefix.
    translate: diffusers' names for those, which may be another dialect's.
    facts: what shapes, by diffusers' names, show of a config.json for the class. binding: those of
        them that a config.json has to agree with.
    told_by: whether a config.json of one of the classes means this family.
    kind: which of the classes holds a network of these shapes; None where it is the first.
    said: what a file's metadata, the names in it and the facts together say of a config.json, where
        none is there. settle: what has to be done to a module made of all that.
    scalars: diffusers' names of tensors that are single numbers.
    linear: diffusers' names of weights that are those of linear maps there, and may be those of
        convolutions of 1x1x1 in files; None where there is none.
    architecture: from all shapes and a config.json for the class; parameters and dtypes are left
        out. It and `facts` raise `LoadError` for what is incomplete.
    """

    family: str
    title: str
    classes: tuple[str, ...]
    needs: str
    marks: re.Pattern[str]
    others: re.Pattern[str] | None
    parts: tuple[str, ...]
    translate: Callable[[Collection[str]], Mapping[str, str]]
    facts: Callable[[Shapes, str], dict[str, Any]]
    binding: frozenset[str]
    architecture: Callable[[Shapes, Mapping[str, Any]], Architecture]
    told_by: Callable[[Mapping[str, Any]], bool] = lambda _: True
    kind: Callable[[Shapes], str] | None = None
    said: (
        Callable[[Mapping[str, str], Collection[str], Mapping[str, Any]], dict[str, Any]] | None
    ) = None
    settle: Callable[[Any, Mapping[str, Any]], None] | None = None
    linear: re.Pattern[str] | None = None
    scalars: frozenset[str] = frozenset()
    home: str = DIFFUSERS

    def prefixes(self, names: Collection[str]) -> list[str]:
        """Before which the family's VAEs stand among `names`, each once."""
        others = set(_before(self.others, names) if self.others else ())
        return [prefix for prefix in _before(self.marks, names) if prefix not in others]

    def names(self, stored: Collection[str], prefix: str) -> dict[str, str]:
        """diffusers' name -> name in the file, of the VAE under `prefix`.

        Raises `LoadError` where a tensor stands under two names.
        """
        starts = tuple(prefix + part for part in self.parts)
        own = {name.removeprefix(prefix): name for name in stored if name.startswith(starts)}
        names: dict[str, str] = {}
        for short, name in self.translate(own).items():
            if name in names:
                raise LoadError(
                    f"{names[name]} and {own[short]} are both the tensor {name}. {EXPECTED}"
                )
            names[name] = own[short]
        return names


def _before(pattern: re.Pattern[str], names: Collection[str]) -> list[str]:
    """What stands before the names that end in `pattern`, each once."""
    whole = re.compile(f"((?:.+?\\.)?)(?:{pattern.pattern})")
    hits = (whole.fullmatch(name) for name in names)
    return list(dict.fromkeys(hit.group(1) for hit in hits if hit))


def shape_of(value: object) -> Shape:
    """The shape of a tensor, or of what stands for one, or is a shape."""
    return tuple(cast("Sequence[int]", getattr(value, "shape", value)))


def dtypes_of(values: Sequence[object]) -> tuple[str, ...]:
    """The names of the dtypes among `values`, as far as they have one."""
    dtypes = {str(getattr(value, "dtype", "")).removeprefix("torch.") for value in values}
    return tuple(sorted(dtypes - {""}))


def count(names: Collection[str], pattern: str) -> int:
    """How many different numbers stand in the pattern's group; never more than there are names."""
    hits = (re.match(pattern, name) for name in names)
    return len({hit.group(1) for hit in hits if hit})


def convolution(shapes: Shapes, name: str, title: str) -> Shape:
    """The shape [out, in, t, h, w] of a 3D convolution's weight.

    title: of the family, for `LoadError` where there is no such tensor, or of another rank.
    """
    shape = shapes.get(name)
    if shape is None:
        raise LoadError(f"this {title} VAE is incomplete: {name} is missing. {EXPECTED}")
    if len(shape) != 5:
        raise LoadError(f"{name} must be a 3D convolution's; it has shape {shape}. {EXPECTED}")
    return shape


def check_shapes(wanted: Shapes, found: Shapes, title: str) -> None:
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
            f"of the {len(wanted)} tensors of this {title} VAE, {'; '.join(told)}. {EXPECTED}"
        )


def listed(names: Collection[str]) -> str:
    """A few of `names`, and how many more there are."""
    shown = ", ".join(list(names)[:_NAMES_SHOWN]) or "nothing"
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
