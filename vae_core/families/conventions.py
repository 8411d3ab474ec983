"""In which convention does somebody hand over latents, and how do they become ours?

Inside, latents are unscaled [b, c, t, h, w]. Outside there are two more habits:
1. Diffusion models see latents times a scaling factor. It belongs to the model and cannot be read
   from the VAE's weights, which are the same for all: it comes from config.json, from the caller,
   or from a model's name.
2. kijai's ComfyUI-CogVideoXWrapper passes {"samples": [b, t, c, h, w], "additional_frames": k},
   times 0.7 for every model, where the first k latent frames are filler of CogVideoX 1.5 that its
   decoder leaves out (its nodes.py, commit fdb8abd, lines 794-798 and 853-884).

`convention_of` tells the two kinds of a LATENT apart by shape and refuses to guess: 16 latent
frames of 16 channels are either, and then a key of the LATENT decides, kijai's or our own
`LAYOUT_KEY`, or the caller. Nothing is encoded, decoded or written here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, SupportsFloat, SupportsIndex, cast

from torch import Tensor

from ..errors import InputError
from .family import whose_latents
from .latent_statistics import LatentStatistics

LATENT_CHANNELS = 16
"""Channels of CogVideoX latents."""

_HUNYUAN_1_5 = "hunyuanvideo-1.5"
_HUNYUAN = "hunyuanvideo"
SCALING_FACTORS = {
    "2b": 1.15258426,
    "5b": 0.7,
    "1.5": 0.7,
    _HUNYUAN: 0.476986,
    _HUNYUAN_1_5: 1.03682,
}
"""By kind of model: `scaling_factor` in vae/config.json of THUDM's CogVideoX-2b, CogVideoX-5b and
CogVideoX1.5-5B (image-to-video models have that of their kind), and of HunyuanVideo's
(Kandinsky 5 and FramePack have that of its first).
"""

KIJAI_FACTOR = 0.7
"""What kijai's nodes multiply by, whatever the model: `scaling_factor` in their
configs/vae_config.json.
"""

_FILLER_KEY = "additional_frames"

LAYOUT_KEY = "exact_video_vae_layout"
"""Key of a LATENT under which we say that it is core's, where its shape does not."""

_ASK = (
    "It cannot be read from weights, which models with other factors share. Give the factor, or the"
    " model: " + ", ".join(f"{name} ({factor})" for name, factor in SCALING_FACTORS.items())
)


class Convention(Enum):
    """How a LATENT dictionary holds its latents: `CORE` unscaled [b, c, t, h, w], `KIJAI` [b, t, c,
    h, w] times 0.7.
    """

    CORE = "core"
    KIJAI = "kijai"


def known_factor(model: str) -> float:
    """The scaling factor of the model called `model`, such as "2b" or
    "THUDM/CogVideoX1.5-5B-I2V".

    Raises `InputError` where the name says neither 2B, 5B, 1.5 nor HunyuanVideo.
    """
    name = model.lower()
    kinds = set(re.findall(r"(?<![\d.])(?:2b|5b)(?![a-z\d])", name))
    if re.search(r"(?<![\d._])1[._]5(?!\d)", name):
        kinds.add("1.5")
    if "hunyuan" in name:
        kinds = {_HUNYUAN_1_5 if "1.5" in kinds else _HUNYUAN}
    factors = {SCALING_FACTORS[kind] for kind in kinds}
    if len(factors) != 1:
        raise InputError(f"the scaling factor of the model {model!r} is not known. {_ASK}.")
    return factors.pop()


def scaling_factor(asked: float | str | None, configured: float | None = None) -> float:
    """The factor that `asked` means: a number, a text that is one, a model's name, or, for None,
    the one that config.json gave. The text "1.5" is the model of that name.

    configured: `VideoVAE.scaling_factor`. Raises `InputError` where neither says one.
    """
    if asked is None and configured is None:
        raise InputError(f"the scaling factor of these latents is not known. {_ASK}.")
    if isinstance(asked, str):
        return _factor_in(asked)
    return _checked_factor(configured if asked is None else asked)


def _factor_in(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:  # no number
        return known_factor(text)
    return SCALING_FACTORS[text] if text in SCALING_FACTORS else _checked_factor(factor)


def _checked_factor(factor: Any) -> float:
    number = isinstance(factor, (SupportsFloat, SupportsIndex)) and factor is not True
    if not (number and math.isfinite(factor) and float(factor) > 0):
        raise InputError(f"a scaling factor must be a number above 0; got {factor!r}. {_ASK}.")
    return float(factor)


def scaled(latents: Tensor, factor: float) -> Tensor:
    """Unscaled latents as a diffusion model sees them: times `factor`, of the same shape and dtype;
    `InputError` for a factor that is no number above 0.
    """
    _check_tensor(latents, "latents")
    return latents * _checked_factor(factor)


def unscaled(latents: Tensor, factor: float) -> Tensor:
    """A diffusion model's latents as this package has them: `scaled` undone, to rounding;
    `InputError` for a factor that is no number above 0.
    """
    _check_tensor(latents, "latents")
    return latents / _checked_factor(factor)


@dataclass(frozen=True, slots=True)
class Form:
    """How latents lie in somebody's file: in whose order of dimensions, and times which factor, or
    normalised by channel.

    Invariant: the factor is 1 where there are statistics, and the order is core's.

    told: whether somebody said whose they are; else a shape that fits both is refused.
    """

    convention: Convention = Convention.CORE
    factor: float = 1.0
    statistics: LatentStatistics | None = None
    told: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        _checked_factor(self.factor)

    @property
    def layout(self) -> str:
        """The order of dimensions in words, as the metadata of latent files have it."""
        return "b t c h w" if self.convention is Convention.KIJAI else "b c t h w"

    def of(self, latents: Tensor) -> Tensor:
        """Unscaled latents [b, c, t, h, w] in this form."""
        if self.statistics is not None:
            return self.statistics.normalised(latents)
        return self._turned(scaled(latents, self.factor))

    def undo(self, stored: Tensor) -> Tensor:
        """Unscaled latents [b, c, t, h, w] of a tensor in this form, to rounding."""
        if self.statistics is not None:
            return self.statistics.undone(stored)
        return unscaled(self._turned(stored), self.factor)

    def scaled(self, x: Tensor, channel: int | None) -> Tensor:
        """Unscaled values of one channel, or of all where there are no statistics, in this form."""
        if self.statistics is not None and channel is not None:
            return (x - self.statistics.mean[channel]) / self.statistics.std[channel]
        return x if self.factor == 1.0 else x * self.factor

    def _turned(self, x: Tensor) -> Tensor:
        """Dimensions 1 and 2 exchanged, which undoes itself; or `x`."""
        return x.transpose(1, 2) if self.convention is Convention.KIJAI else x


UNSCALED = Form()
"""Ours, and that of ComfyUI's core."""


def to_kijai(latents: Tensor, channels: int = LATENT_CHANNELS) -> dict[str, Any]:
    """Unscaled latents [b, c, t, h, w] as a LATENT of kijai's nodes, without filler.

    Returns {"samples": [b, t, c, h, w] times 0.7, contiguous, "additional_frames": 0}. Raises
    `InputError` where dimension 1 does not hold `channels`.
    """
    _check(latents, "latents")
    if latents.shape[1] != channels:
        raise InputError(
            f"latents must be [b, c, t, h, w] with {channels} channels in dimension 1; got"
            f" {list(latents.shape)}. Latents that are kijai's already need no conversion."
        )
    samples = scaled(latents, KIJAI_FACTOR).transpose(1, 2)  # [b, t, c, h, w]
    return {"samples": samples.contiguous(), _FILLER_KEY: 0}


def from_kijai(latent: Mapping[str, Any], channels: int = LATENT_CHANNELS) -> Tensor:
    """Unscaled latents [b, c, t, h, w], contiguous, of a LATENT of kijai's nodes.

    The first `additional_frames` latent frames are filler and left out, as kijai's decoder does;
    `filler_frames` tells how many. Raises `InputError` where dimension 2 does not hold `channels`,
    or all is filler.
    """
    samples = _samples(latent)
    if samples.shape[2] != channels:
        raise InputError(
            f"latents of kijai's nodes are [b, t, c, h, w] with {channels} channels in dimension 2;"
            f" got {list(samples.shape)}. Latents of core nodes need no conversion."
        )
    start, frames = filler_frames(latent), samples.shape[1]
    if start >= frames:
        raise InputError(
            f"{_FILLER_KEY} must be fewer than the latent frames; got {start} of {frames}."
        )
    return unscaled(samples[:, start:].transpose(1, 2), KIJAI_FACTOR).contiguous()


def filler_frames(latent: Mapping[str, Any]) -> int:
    """How many latent frames at the start are filler; 0 where the LATENT does not say.

    Raises `InputError` for what is no whole number of at least 0.
    """
    count: Any = latent.get(_FILLER_KEY, 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise InputError(f"{_FILLER_KEY} must be a whole number of at least 0; got {count!r}.")
    return count


def convention_of(latent: Mapping[str, Any], channels: int = LATENT_CHANNELS) -> Convention:
    """Whose a LATENT is: the dimension that holds `channels` says so.

    Where both do, a key decides: kijai's `additional_frames`, or our `LAYOUT_KEY`. Raises
    `InputError` where neither does, or both without one such key: the caller has to say.
    """
    samples = _samples(latent)
    core, kijai = samples.shape[1] == channels, samples.shape[2] == channels
    if core and kijai and (LAYOUT_KEY in latent) == (_FILLER_KEY in latent):
        raise InputError(f"{either(list(samples.shape))} Say which they are.")
    if not (core or kijai):
        found = list(samples.shape)
        raise InputError(
            f"CogVideoX latents have {channels} channels, in dimension 1 (core) or 2 (kijai); got"
            f" {found}. They belong to another model.{whose_latents(found[1])}"
        )
    return Convention.KIJAI if kijai and (not core or _FILLER_KEY in latent) else Convention.CORE


def either(shape: list[int]) -> str:
    """The sentence for latents that may be anybody's."""
    return (
        f"latents of {shape[1]} latent frames and {shape[1]} channels may be [b, c, t, h, w] (core)"
        f" or [b, t, c, h, w] (kijai); got {shape}."
    )


def fits_both(shape: Sequence[int], channels: int = LATENT_CHANNELS) -> bool:
    """Whether latents of that shape may be core's as well as kijai's, whose are always of 16
    channels.
    """
    return channels == LATENT_CHANNELS and shape[1] == shape[2] == channels


def marked(latent: Mapping[str, Any]) -> dict[str, Any]:
    """The same LATENT, known to be core's: with `LAYOUT_KEY` where its shape does not say so."""
    plain = {key: value for key, value in latent.items() if key != LAYOUT_KEY}
    return plain | ({LAYOUT_KEY: UNSCALED.layout} if fits_both(_samples(latent).shape) else {})


def latents_of(
    latent: Mapping[str, Any],
    convention: Convention | None = None,
    channels: int = LATENT_CHANNELS,
) -> Tensor:
    """Unscaled latents [b, c, t, h, w] of a LATENT in either convention; None finds out which.

    Raises `InputError` as `convention_of` and `from_kijai` do.
    """
    found = convention or convention_of(latent, channels)
    return from_kijai(latent, channels) if found is Convention.KIJAI else _samples(latent)


def _samples(latent: Mapping[str, Any]) -> Tensor:
    if not isinstance(cast("Any", latent), Mapping):
        raise InputError(f"a LATENT is a dict with 'samples'; got {type(latent).__name__}.")
    samples: Any = latent.get("samples")
    if not isinstance(samples, Tensor):
        keys = ", ".join(sorted(latent)) or "nothing"
        raise InputError(f"a LATENT holds a tensor under 'samples'; this one holds {keys}.")
    _check(samples, "video latents")
    return samples


def _check_tensor(latents: object, what: str) -> None:
    if not isinstance(latents, Tensor):
        raise InputError(f"{what} must be a torch.Tensor; got {type(latents).__name__}.")


def _check(latents: Tensor, what: str) -> None:
    _check_tensor(latents, what)
    if latents.ndim != 5 or not latents.is_floating_point():
        raise InputError(
            f"{what} must be a floating point tensor of five dimensions; got"
            f" {list(latents.shape)} of {latents.dtype}."
        )
