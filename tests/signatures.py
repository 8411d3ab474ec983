"""What a class of diffusers shows to whoever calls it, for tests of its doors."""

from __future__ import annotations

import inspect

from torch import Tensor, nn


def shown(module: nn.Module, video: Tensor, latents: Tensor) -> list[object]:
    """Parameters of both methods, and the types of all that they return."""
    encoded, decoded = module.encode(x=video), module.decode(z=latents)
    bare = module.encode(video, False), module.decode(latents, return_dict=False)
    names = [list(inspect.signature(f).parameters) for f in (module.encode, module.decode)]
    values = (encoded, encoded.latent_dist, decoded, decoded.sample, *bare, *bare[0], *bare[1])
    return [names, [type(value) for value in values]]
