"""Is a LATENT one of this VAE's, whose habits does it follow, and how does it become core's?

Latents of different models may have the same shape. What a LATENT carries beside its samples says
more: keys that only one pack writes. What belongs to another model is refused by name; what is of
this one but in another pack's scale or order is turned (`images` and `wan_wrapper` have how).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...vae_core import InputError
from ...vae_core.families.conventions import Convention
from ...vae_core.families.family import COGVIDEOX, WAN, Family, whose_latents
from . import wan_wrapper
from .images import CHANNELS, checked_latents, others


def latents_for(vae: Any, latent: Any) -> tuple[Tensor, list[str]]:
    """Unscaled latents [b, c, n, h, w] of a LATENT for `vae`, and what was done to them.

    Raises `InputError` for latents of another model, nested ones, NaN, and those that may be
    anybody's, before anything is computed.
    """
    family, channels = vae.video_vae.family, vae.ends.channels
    if isinstance(latent, Mapping):
        _check_wrapper(latent, family)
    if family is COGVIDEOX:
        return checked_latents(latent, channels)
    if isinstance(latent, Mapping):
        _check_channels(latent, channels, family.title)
    samples, notes = checked_latents(latent, channels, Convention.CORE)
    if wan_wrapper.is_theirs(latent):
        return wan_wrapper.from_theirs(latent)
    return vae.ends.taken(samples), notes


def _check_wrapper(latent: Mapping[str, Any], family: Family) -> None:
    """`InputError` for latents of a wrapper that is for another family."""
    wrappers = (
        ("CogVideoXWrapper, for a CogVideoX VAE", COGVIDEOX, "additional_frames" in latent),
        ("WanVideoWrapper, for a Wan VAE", WAN, wan_wrapper.is_theirs(latent)),
    )
    for name, own, is_theirs in wrappers:
        if is_theirs and family is not own:
            raise InputError(
                f"these latents are of {name}; this VAE is one of {family.title}. Connect the VAE"
                " of the model that made them."
            )


def _check_channels(latent: Mapping[str, Any], channels: int, title: str) -> None:
    """`InputError` for latents that say by their shape that they are another model's."""
    shape = list(getattr(latent.get("samples"), "shape", ()))
    if len(shape) == 5 and shape[1] != channels:
        raise InputError(
            f"latents of {title} have {channels} channels in dimension 1; got {shape}. They belong"
            f" to another model.{whose_latents(shape[1])}"
        )


def from_wan_wrapper(latent: Any) -> dict[str, Any]:
    """A LATENT of WanVideoWrapper as core's."""
    checked_latents(latent, CHANNELS, Convention.CORE)
    samples, _ = wan_wrapper.from_theirs(latent)
    return _kept(latent) | {"samples": samples}


def for_wan_wrapper(latent: Any) -> dict[str, Any]:
    """A LATENT of core as WanVideoWrapper's, known to be that from then on.

    Raises `InputError` for one that is WanVideoWrapper's already.
    """
    samples, _ = checked_latents(latent, CHANNELS, Convention.CORE)
    if wan_wrapper.is_theirs(latent):
        raise InputError(
            "these latents are WanVideoWrapper's already. Take the conversion out, or choose the"
            " other direction."
        )
    return _kept(latent) | {"samples": wan_wrapper.to_theirs(samples), "has_ref": False}


def _kept(latent: Mapping[str, Any]) -> dict[str, Any]:
    theirs = {*wan_wrapper.SAMPLERS_KEYS, "end_image"}
    return {key: value for key, value in others(latent).items() if key not in theirs}
