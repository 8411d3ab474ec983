"""What does kijai's WanVideoWrapper put on its wires, and how does it become core's?

1. Its VAE is a module of its own, not core's class: a network by the authors' names under `model`,
   which scales latents itself. The host builds its own VAE over the same weights, once for each.
2. Its LATENT holds what its diffusion models see: every channel less its mean, over its standard
   deviation. Core's, and ours, are as the VAE gives them. Both are [b, c, t, h, w].
3. Keys that only its sampler writes say whose a LATENT is, and which of its frames are no part of
   the clip. What its encoder writes looks like core's: there a person has to say, with the node
   that converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ...vae_core import InputError
from ...vae_core.families.latent_statistics import WAN_2_1
from . import host

SAMPLERS_KEYS = frozenset({"looped", "has_ref", "drop_last"})
"""Keys of a LATENT that only WanVideoWrapper's samplers write."""

_made: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""By VAE of WanVideoWrapper: the host's own over its weights."""


def unwrapped(vae: Any) -> Any:
    """The host's VAE over the weights of WanVideoWrapper's; anything else as it is.

    Raises `InputError` where the host cannot build one of them.
    """
    if not _is_wrapped(vae):
        return vae
    if vae not in _made:
        weights = {name: weight.detach().cpu() for name, weight in vae.model.state_dict().items()}
        dtype = next(vae.model.parameters()).dtype
        made = host.vae_of(weights, dtype)
        if made is None:
            raise InputError(
                f"this VAE of WanVideoWrapper ({type(vae).__name__}) holds another network than"
                " Wan 2.1's, so that it cannot be converted. Load the file with Exact VAE Loader."
            )
        _made[vae] = made
    return _made[vae]


def _is_wrapped(vae: Any) -> bool:
    """Whether an object is WanVideoWrapper's VAE, by what it holds."""
    network = getattr(vae, "model", None)
    if not isinstance(vae, nn.Module) or not isinstance(network, nn.Module):
        return False
    return hasattr(vae, "upsampling_factor") and hasattr(network, "conv2")


def is_theirs(latent: Mapping[str, Any]) -> bool:
    """Whether a LATENT says that it is of WanVideoWrapper's sampler."""
    return not SAMPLERS_KEYS.isdisjoint(latent)


def from_theirs(latent: Mapping[str, Any]) -> tuple[Tensor, list[str]]:
    """Latents [b, c, t, h, w] as core has them, of WanVideoWrapper's LATENT, and what was done.

    Frames that it marks as no part of the clip are left out, as its own decoder does. Raises
    `InputError` for what only that decoder can decode.
    """
    for key, what in (("looped", "a loop"), ("end_image", "a clip with an end image")):
        value = latent.get(key)
        if value is not None and value is not False:
            raise InputError(
                f"these latents of WanVideoWrapper are of {what}, which its own decoder puts"
                " together in another way. Decode them with WanVideo Decode."
            )
    samples = latent["samples"]
    first, last = bool(latent.get("has_ref")), bool(latent.get("drop_last"))
    kept = samples[:, :, int(first) : samples.shape[2] - int(last)]
    if kept.shape[2] == 0:
        raise InputError("these latents of WanVideoWrapper hold no frame of the clip itself.")
    notes = ["Latents of WanVideoWrapper: brought to core's scale."]
    if first or last:
        notes.append(f"Latent frames that are no part of the clip left out: {first + last}.")
    return WAN_2_1.undone(kept), notes


def to_theirs(samples: Tensor) -> Tensor:
    """Latents [b, c, t, h, w] of core as WanVideoWrapper's nodes have them."""
    return WAN_2_1.normalised(samples)
