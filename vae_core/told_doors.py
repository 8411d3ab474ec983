"""What do LTX's classes in diffusers take beside a video or latents, and what becomes of it?

Their decoders may be told how much noise is left in latents (`temb`), and LTX-2's class may be told
to see no later frames (`causal`). The first goes into the program of the decoder; the second is what
the module is made for, or refused.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from .errors import InputError


def timestep_of(temb: object) -> float | None:
    """How much noise a decoder is told of; None where nothing is said.

    temb: a number, or one for each clip, all the same. Raises `InputError` for others.
    """
    if temb is None or isinstance(temb, int | float):
        return None if temb is None else float(temb)
    values = cast("Tensor", temb).flatten() if isinstance(temb, Tensor) else torch.zeros(0)
    if not len(values) or bool((values != values[0]).any()):
        raise InputError(
            "an accelerated VAE tells all clips of a batch the same timestep; got"
            f" {temb!r}. Decode them one by one."
        )
    return float(values[0])


def check_causal(module: nn.Module, name: str, causal: object) -> None:
    """`InputError` where a coder is told to see no later frames, and is made to see them."""
    coder = cast("Any", getattr(module, name))
    if causal and not getattr(coder, "is_causal", True):
        raise InputError(
            f"this VAE's {name} looks ahead; causal={causal!r} asks for another one. Leave it out,"
            f" or make the VAE with {name}_causal=True."
        )


def arguments_of(
    module: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a call of one of the class's methods asks for, by name, defaults included; in order."""
    bound = inspect.signature(getattr(type(module), name)).bind(module, *args, **kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if name != "self"}
