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
from ...vae_core.families.family import COGVIDEOX, WAN, Family
from . import wan_wrapper
from .images import CHANNELS, checked_latents, others


def latents_for(vae: Any, latent: Any) -> tuple[Tensor, list[str]]:
    """Unscaled latents [b, c, n, h, w] of a LATENT for `vae`, and what was done to them.

    Raises `InputError` for latents of another model, nested ones, NaN, and those that may be
    anybody's, before anything is computed.
    """
    family = vae.video_vae.family
    if family is not COGVIDEOX:
        return _of_wan(latent, vae.ends.channels, family)
    if isinstance(latent, Mapping) and wan_wrapper.is_theirs(latent):
        raise InputError(
            "these latents are of WanVideoWrapper, for a Wan VAE; this VAE is one of"
            f" {family.title}. Connect the VAE of the model that made them."
        )
    return checked_latents(latent, vae.ends.channels)


def _of_wan(latent: Any, channels: int, family: Family) -> tuple[Tensor, list[str]]:
    if isinstance(latent, Mapping):
        _check_model(latent, channels, family.title)
    samples, notes = checked_latents(latent, channels, Convention.CORE)
    if not wan_wrapper.is_theirs(latent):
        return samples, notes
    if family is not WAN:
        raise InputError(
            f"how WanVideoWrapper's latents of {family.title} lie is not known here. Decode them by"
            " its own node."
        )
    return wan_wrapper.from_theirs(latent)


def _check_model(latent: Mapping[str, Any], channels: int, title: str) -> None:
    """`InputError` for latents of a model whose VAE this is not."""
    shape = list(getattr(latent.get("samples"), "shape", ()))
    if "additional_frames" in latent:
        raise InputError(
            f"these latents are of CogVideoXWrapper; this VAE is one of {title}. Connect the VAE of"
            " the model that made them."
        )
    if len(shape) == 5 and shape[1] != channels:
        raise InputError(
            f"latents of {title} have {channels} channels in dimension 1; got {shape}. They belong"
            " to another model."
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
