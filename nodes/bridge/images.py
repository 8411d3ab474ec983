"""How do the host's pictures and latents become the engine's, and back?

IMAGE is [t, h, w, c] in [0, 1], one clip; LATENT is {"samples": [b, c, n, h/r, w/r]}, unscaled. The
engine has [b, c, t, h, w], pixels in [-1, 1]. Frames are turned as they are needed: no second copy
of a clip is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ...vae_core import InputError, from_kijai, to_kijai
from ...vae_core.families.conventions import (
    KIJAI_FACTOR,
    LAYOUT_KEY,
    Convention,
    convention_of,
    either,
    fits_both,
    marked,
)
from ...vae_core.families.conventions import LATENT_CHANNELS as CHANNELS
from ...vae_core.families.family import whose_latents
from .origin import ORIGIN

RUN_FRAMES = 8
"""Frames that are turned at a time."""


def checked_image(image: Any, colours: int = 3) -> tuple[Tensor, list[str]]:
    """The colours [t, h, w, `colours`] of an IMAGE, and what was left out or added.

    Raises `InputError` for what is no IMAGE, before anything is computed.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or not image.is_floating_point():
        raise InputError(
            "images must be an IMAGE: floating point [frames, height, width, colours]; got"
            f" {_what(image)}."
        )
    if min(image.shape) < 1 or image.shape[3] not in (3, 4):
        raise InputError(
            "images must hold at least one frame of 3 colours, or 4 with alpha (left out where the"
            f" network knows colours only); got {list(image.shape)}."
        )
    _check_finite(image, "images")
    notes: list[str] = []
    if image.shape[3] > colours:
        notes.append("Alpha was left out: the network knows colours only.")
    if image.shape[3] < colours:
        notes.append("Alpha was added: the network knows it, and every pixel was taken as opaque.")
    return with_colours(image, colours), notes


def with_colours(image: Tensor, colours: int) -> Tensor:
    """[..., c] with so many colours: what is over left out, what lacks opaque, as core has it."""
    missing = colours - image.shape[-1]
    if missing <= 0:
        return image[..., :colours]
    return torch.nn.functional.pad(image, (0, missing), value=1.0)


def _check_finite(frames: Tensor, name: str) -> None:
    for index, frame in enumerate(frames):
        low, high = torch.aminmax(frame)
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise InputError(
                f"{name} holds NaN or infinite values, first in frame {index}; look at the node"
                " that made them."
            )


def pixel_runs(image: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """The frames of an IMAGE [t, h, w, c] as runs [1, c, k, h, w] in [-1, 1]."""
    for run in image.split(RUN_FRAMES):
        pixels = run.to(torch.float32) * 2.0 - 1.0
        yield pixels.to(dtype).permute(3, 0, 1, 2).unsqueeze(0)  # [1, c, k, h, w]


def write_frames(image: Tensor, frames: Tensor) -> None:
    """Finished frames [b, c, k, h, w] in about [-1, 1] into a part [b, k, h, w, c] of a result in
    [0, 1].
    """
    h, w = image.shape[2:4]
    pixels = frames[..., :h, :w].to(torch.float32).movedim(1, -1)  # [b, k, h, w, c]
    image.copy_(((pixels + 1.0) / 2.0).clamp_(0.0, 1.0))


def checked_latents(
    latent: Any, channels: int, told: Convention | None = None
) -> tuple[Tensor, list[str]]:
    """Unscaled latents [b, c, n, h, w] of a LATENT, core's or kijai's, and what was done to them.

    told: whose they are, where somebody said so. Raises `InputError` for latents of another model,
    nested ones, NaN, and those that may be either's, before anything is computed.
    """
    samples = latent.get("samples") if isinstance(latent, Mapping) else None
    if getattr(samples, "is_nested", False):
        raise InputError(
            "these latents are nested: several latents of different kinds, such as video and sound,"
            " in one. Take the video's out first."
        )
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        raise InputError(f"samples must be a LATENT of floating point; got {_what(samples)}.")
    if samples.ndim != 5:
        raise InputError(
            f"latents of video have five dimensions [batch, {channels}, frames, rows, columns]; got"
            f" {list(samples.shape)}. They belong to an image model."
        )
    if told is None and fits_both(samples.shape, channels):
        told = _told(latent, channels)
    samples, notes = _turned(latent, samples, channels, told)
    _check_finite(samples.movedim(2, 0), "samples")
    return samples, notes


def _told(latent: Mapping[str, Any], channels: int) -> Convention:
    """Whose latents of a shape that fits both are, by the LATENT's keys.

    `InputError` where they do not say, with the node that does.
    """
    try:
        return convention_of(latent, channels)
    except InputError as error:
        raise InputError(
            f"{either(list(latent['samples'].shape))} Nothing says which: put Exact VAE Latent"
            " Convert before this node, and choose there whose they are."
        ) from error


def _turned(
    latent: Mapping[str, Any], samples: Tensor, channels: int, told: Convention | None
) -> tuple[Tensor, list[str]]:
    """`samples` in core's convention; a key that only kijai's nodes write says whose they are."""
    theirs = "additional_frames" in latent if told is None else told is Convention.KIJAI
    if theirs and samples.shape[2] == channels:
        note = "Latents of CogVideoXWrapper: axes exchanged, divided by 0.7."
        return from_kijai(latent, channels), [note]
    if samples.shape[1] != channels:
        hint = (
            " They look like CogVideoXWrapper's, [b, t, c, h, w]: Exact VAE Latent Convert turns"
            " them."
            if samples.shape[2] == channels
            else f" They belong to another model.{whose_latents(samples.shape[1])}"
        )
        raise InputError(
            f"latents of this VAE have {channels} channels in dimension 1; got"
            f" {list(samples.shape)}.{hint}"
        )
    return samples, []


def from_wrapper(latent: Any, scale: float, filler: int) -> dict[str, Any]:
    """A LATENT of CogVideoXWrapper [b, t, c, h, w] as core's; filler: frames of it, -1 for what the
    latent says.
    """
    own = filler < 0 or not isinstance(latent, Mapping)  # what is no LATENT is refused below
    told = latent if own else {**latent, "additional_frames": filler}
    samples = from_kijai(told, CHANNELS) * (KIJAI_FACTOR / scale)
    return marked(others(latent) | {"samples": samples})


def as_core(latent: Any) -> dict[str, Any]:
    """The same LATENT, known to be core's from then on."""
    checked_latents(latent, CHANNELS, Convention.CORE)
    return marked({key: value for key, value in latent.items() if key != "additional_frames"})


def for_wrapper(latent: Any, scale: float, filler: int) -> dict[str, Any]:
    """A LATENT of core [b, c, t, h, w] as CogVideoXWrapper's; filler: how many of its first latent
    frames are.
    """
    carried = isinstance(latent, Mapping) and "additional_frames" in latent
    told = None if carried else Convention.CORE  # the direction says it
    samples, _ = checked_latents(latent, CHANNELS, told)
    turned = to_kijai(samples, CHANNELS)
    turned["samples"] = turned["samples"] * (scale / KIJAI_FACTOR)
    return others(latent) | turned | {"additional_frames": filler}


def others(latent: Mapping[str, Any]) -> dict[str, Any]:
    """What else a LATENT holds; a clip's own size would be wrong after filler went."""
    own = ("samples", "additional_frames", ORIGIN, LAYOUT_KEY)
    return {key: value for key, value in latent.items() if key not in own}


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)} of {value.dtype}"
    return "nothing" if value is None else type(value).__name__
