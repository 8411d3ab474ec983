"""Which families does the engine carry, and which of them does a module belong to?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..program.steps import Program
from . import cogvideox, wan


@dataclass(frozen=True, slots=True)
class Family:
    """Networks with one structure.

    name: as files and settings have it. title: as a person reads it.
    owns: whether a module is one of them. lower_encoder, lower_decoder: the programs that such a
        module stands for; they raise `LoweringError` with the path of what the engine cannot run.
    clamps: whether the authors clamp decoded frames to [-1, 1]; the engine leaves them as they are.
    """

    name: str
    title: str
    owns: Callable[[nn.Module], bool]
    lower_encoder: Callable[[nn.Module], Program]
    lower_decoder: Callable[[nn.Module], Program]
    clamps: bool = False


COGVIDEOX = Family(
    "cogvideox", "CogVideoX", cogvideox.owns, cogvideox.lower_encoder, cogvideox.lower_decoder
)
WAN = Family(
    "wan",
    "Wan 2.1 and Qwen-Image",
    wan.owns,
    wan.lower_encoder,
    wan.lower_decoder,
    clamps=True,
)

WAN_2_2 = Family(
    "wan22",
    "Wan 2.2 5B",
    wan.owns_2_2,
    wan.lower_encoder,
    wan.lower_decoder,
    clamps=True,
)

FAMILIES = (WAN, WAN_2_2, COGVIDEOX)


def family_of(module: nn.Module) -> Family:
    """The family whose parts a module has; CogVideoX where it is nobody's, whose lowering then says
    what is missing.
    """
    return next((family for family in FAMILIES if family.owns(module)), COGVIDEOX)
