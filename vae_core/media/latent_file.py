"""How are latents kept in a file, so that nobody has to guess their layout, scale or length?

A safetensors file, readable by ComfyUI's LoadLatent (give it the suffix .latent for that node to
list it):
1. `latent_tensor` is float32 [b, c, t, h, w], unscaled; beside it the empty
   `latent_format_version_0`, without which LoadLatent divides by the factor of an image VAE. `mean`
   and `logvar`, of the same shape, are there on request.
2. On request the latents lie in another `Form`, a diffusion model's or kijai's, and are turned back
   on reading; `mean` and `logvar` never are.
3. String metadata hold layout, scale, the VAE's scaling factor, the source's extent and rate, the
   extent that padding or cropping made of it, the VAE's name and the chunking. All of it is
   optional on reading: see `LatentMeta`.

It does not check latents against a network: decoding does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

from ..errors import InputError, VideoError
from ..families.conventions import UNSCALED, Convention, Form, either, fits_both
from ..families.family import BY_NAME
from ..families.latent_statistics import LatentStatistics
from .files import check_input, plainly_named, whole_file

LATENT_SUFFIXES = frozenset({".safetensors", ".latent"})
LATENT_KEY = "latent_tensor"
VERSION_KEY = "latent_format_version_0"
SCALE = "unscaled"
NORMALISED = "normalised"
COGVIDEOX = "cogvideox"
_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class LatentMeta:
    """What a latent file says of its latents; None where it says nothing.

    family: whose latents they are. pixels_per_latent, frames_per_latent: the network's ratios.
    scaling_factor: the VAE's own, by which a diffusion model's latents are multiplied. Not applied
        to the file.
    latents_mean, latents_std: of each channel, by which a diffusion model's latents are normalised.
        Applied only where the file's scale is "normalised".
    sample_frames, height_px, width_px: the source clip, to which a decode is trimmed.
    network_frames, network_height_px, network_width_px: what padding or cropping made of it.
    fps: sample frames a second. start_seconds: where the clip begins in its file, for its sound.
    vae: file or folder name. version: of vae_core. chunk_frames, norm_scope, chunk_layout, tiling:
        the `Settings`.
    """

    family: str | None = None
    pixels_per_latent: int | None = None
    frames_per_latent: int | None = None
    scaling_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    sample_frames: int | None = None
    height_px: int | None = None
    width_px: int | None = None
    network_frames: int | None = None
    network_height_px: int | None = None
    network_width_px: int | None = None
    fps: Fraction | None = None
    start_seconds: Fraction | None = None
    vae: str | None = None
    version: str | None = None
    chunk_frames: int | None = None
    norm_scope: str | None = None
    chunk_layout: str | None = None
    tiling: str | None = None

    @property
    def source(self) -> tuple[int, int, int] | None:
        """(sample_frames, height_px, width_px), or None unless all three are known."""
        if self.sample_frames is None or self.height_px is None or self.width_px is None:
            return None
        return self.sample_frames, self.height_px, self.width_px


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


_READERS: dict[str, Callable[[str], Any]] = {
    "float | None": float,
    "int | None": int,
    "Fraction | None": Fraction,
    "str | None": str,
    "tuple[float, ...] | None": _numbers,
}


def strings_of(meta: LatentMeta, form: Form) -> dict[str, str]:
    """What a file's metadata say of its latents: layout, scale, and each field that is known."""
    said = {one.name: getattr(meta, one.name) for one in fields(meta)}
    if form.statistics is not None:
        said |= {"latents_mean": form.statistics.mean, "latents_std": form.statistics.std}
    known = {name: _text(value) for name, value in said.items() if value is not None}
    # A file's name may hold bytes that are no UTF-8; the header of safetensors may not.
    plain = {
        name: text.encode("utf-8", "backslashreplace").decode() for name, text in known.items()
    }
    return {"layout": form.layout, "scale": _scale(form)} | plain


def _text(value: object) -> str:
    """A field as metadata have it; numbers one after the other."""
    if isinstance(value, tuple):
        return " ".join(map(repr, cast("tuple[float, ...]", value)))
    return str(value)


def _scale(form: Form) -> str:
    if form.statistics is not None:
        return NORMALISED
    return SCALE if form.factor == 1.0 else repr(form.factor)


def meta_of(path: Path, said: Mapping[str, str]) -> LatentMeta:
    """The fields that `said` holds; `InputError` for what is no number."""
    kinds = {one.name: _READERS[str(one.type)] for one in fields(LatentMeta)}
    return LatentMeta(
        **{
            name: _value(path, name, kind, said[name])
            for name, kind in kinds.items()
            if name in said
        }
    )


def form_of(path: Path, said: Mapping[str, str], told: Form | None) -> Form:
    """How the latents of a file lie: as its metadata say, else as we were told, else unscaled.

    `InputError` for a layout or scale that is unknown, or that contradicts what we were told. Where
    nobody says whose they are, the result is not `told`, and `check_told` has to look at the shape.
    """
    if "layout" not in said and "scale" not in said:
        return told or Form(told=False)
    layouts = {Form(one).layout: one for one in Convention}
    layout, scale = said.get("layout", UNSCALED.layout), said.get("scale", SCALE)
    if layout not in layouts:
        raise InputError(f"latents must have layout {' or '.join(layouts)}; {path} says {layout}.")
    plain = scale in (SCALE, NORMALISED)
    form = Form(
        layouts[layout],
        1.0 if plain else _value(path, "scale", float, scale),
        _statistics(path, said) if scale == NORMALISED else None,
        told="layout" in said or bool(told and told.told),
    )
    if told is not None and told != form:
        raise InputError(
            f"{path} says that its latents are {layout}, scale {scale}; you say {told.layout},"
            f" scale {_scale(told)}. Leave out --convention and --scale."
        )
    return form


def _statistics(path: Path, said: Mapping[str, str]) -> LatentStatistics:
    """By which a file's latents are normalised, as it says."""
    meta = meta_of(path, said)
    if meta.latents_mean is None or meta.latents_std is None:
        raise InputError(
            f"{path} says that its latents are normalised, but not by which latents_mean and"
            " latents_std."
        )
    return LatentStatistics(meta.latents_mean, meta.latents_std)


def _value(path: Path, name: str, kind: Callable[[str], Any], text: str) -> Any:
    """`text` as a `kind`; `InputError` unless it is one, and above 0 where it is a number."""
    try:
        value = kind(text)
    except (ValueError, ZeroDivisionError):
        value = 0
    if isinstance(value, tuple):
        return cast("tuple[float, ...]", value)
    if value == 0 or (kind is not str and not value > 0):
        raise InputError(
            f"the metadata of {path} say {name} = {text!r}, which is no number above 0."
        )
    return value


def check_family(path: Path, meta: LatentMeta, family: str | None) -> None:
    """`InputError` for a file that says that its latents are of another family than `family`."""
    if family is not None and meta.family not in (None, family):
        raise InputError(
            f"{path} says that its latents are of the family {meta.family}; the VAE is of"
            f" {family}, and would make nothing of them. Take a VAE of theirs:"
            f" {_option_of(meta.family)}."
        )


def _option_of(family: str | None) -> str:
    """How the command line is told of a family's VAE."""
    known = BY_NAME.get(family or "")
    ships = known is not None and known.published.shipped
    return f"--family {family}, or its file by --vae" if ships else "its file by --vae"


def check_told(path: Path, stored: Sequence[int], form: Form, family: str | None = None) -> None:
    """`InputError` for latents that may be core's as well as kijai's, of which nobody said which.

    stored: their shape as it lies in the file. family: whose they are; only CogVideoX's lie in two
    orders.
    """
    if family not in (None, COGVIDEOX):
        return
    if not form.told and len(stored) == 5 and fits_both(stored):
        raise InputError(
            f"{path}: {either(list(stored))} Its metadata do not say which: add --convention core"
            " or --convention kijai."
        )


def check_latents(whose: str, latents: torch.Tensor, family: str | None = None) -> None:
    """Rank, layout, dtype and values, each with its sentence. whose: what holds the tensor. family:
    whose latents they are, where that is known.
    """
    check_kind(whose, latents, family)
    if not bool(torch.isfinite(latents.to(torch.float32)).all()):
        raise InputError(f"latents must be finite; {whose} holds NaN or infinity.")


def check_kind(whose: str, latents: torch.Tensor, family: str | None = None) -> None:
    """Rank, layout and dtype; no value is looked at."""
    two_orders = family in (None, COGVIDEOX)
    shape = list(latents.shape)
    if latents.ndim != 5:
        raise InputError(f"video latents have the shape [b, c, t, h, w]; {whose} holds {shape}.")
    if 0 in shape:
        raise InputError(f"latents must not be empty; {whose} holds {shape}.")
    if two_orders and shape[1] != _CHANNELS and shape[2] == _CHANNELS:
        raise InputError(
            f"latents must be [b, c, t, h, w] and unscaled; {whose} holds {shape}, which looks like"
            " [b, t, c, h, w], the layout of the CogVideoXWrapper nodes. For a file of theirs,"
            " add --convention kijai."
        )
    if not latents.is_floating_point():
        raise InputError(f"latents must be floating point; {whose} holds {latents.dtype}.")


def save_latents(
    path: str | Path,
    latents: torch.Tensor,
    meta: LatentMeta,
    moments: tuple[torch.Tensor, torch.Tensor] | None = None,
    form: Form = UNSCALED,
) -> None:
    """Write latents [b, c, t, h, w], unscaled, as float32, and `moments` (mean, logvar) of the same
    shape if given.

    form: what the file shall hold instead; moments stay as they are.

    The file appears when it is complete. Raises `InputError` for a wrong tensor, `VideoError` for a
    place that cannot be written to.
    """
    path = Path(path)
    check_latents("the tensor to be saved", latents, meta.family)
    named = {LATENT_KEY: form.of(latents.to(torch.float32))}
    if moments is not None:
        named |= {"mean": moments[0], "logvar": moments[1]}
    # A copy, since the mean may share memory with the latents, which safetensors refuses.
    tensors = {
        key: value.detach().to("cpu", torch.float32, copy=True).contiguous()
        for key, value in named.items()
    }
    tensors[VERSION_KEY] = torch.zeros(0, device="cpu")
    try:
        with whole_file(path) as part:
            cast("Any", save_file)(tensors, part, metadata=strings_of(meta, form))
    except SafetensorError as error:
        raise VideoError(f"cannot write {path}: {error}.") from error


def _read(path: Path) -> tuple[torch.Tensor, dict[str, str]]:
    """The latents and the string metadata as they lie in the file."""
    opened: Any = safe_open  # its stubs are untyped
    with plainly_named(path) as name, opened(name, framework="pt") as file:
        keys: list[str] = sorted(file.keys())
        if LATENT_KEY not in keys:
            found = ", ".join(keys[:4]) or "nothing"
            raise InputError(f"latents lie under the key {LATENT_KEY!r}; {path} holds {found}.")
        return file.get_tensor(LATENT_KEY), file.metadata() or {}


def load_latents(
    path: str | Path, form: Form | None = None, family: str | None = None
) -> tuple[torch.Tensor, LatentMeta]:
    """Latents [b, c, t, h, w], float32, unscaled, and what the file says of them.

    form: how they lie in a file that does not say. family: whose they shall be.

    Raises `VideoError` for a file that is no safetensors file, `InputError` for one without video
    latents.
    """
    path = Path(path)
    check_input(path)
    try:
        latents, said = _read(path)
    except (SafetensorError, OSError) as error:
        raise VideoError(f"{path} is no latent file: it is not readable as safetensors.") from error
    meta, lies = meta_of(path, said), form_of(path, said, form)
    check_family(path, meta, family)
    check_told(path, latents.shape, lies, meta.family or family)
    if latents.ndim == 5:
        latents = lies.undo(latents.to(torch.float32)) if latents.is_floating_point() else latents
    check_latents(str(path), latents, meta.family or family)
    return latents.to(torch.float32).contiguous(), meta
