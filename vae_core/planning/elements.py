"""Would a tensor have more elements than libraries count?"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SettingsError
from .limits import MOST_ELEMENTS
from .memory import Memory


def check_elements(memories: Iterable[Memory]) -> None:
    """Raises `SettingsError` where a step's tensor would be too large without tiles."""
    for memory in memories:
        for step, one in zip(memory.program.steps, memory.steps, strict=True):
            count = one.elements(one.cells)
            if count >= MOST_ELEMENTS:
                raise SettingsError(
                    f"without tiles {step.path} has a tensor of {count / 1e9:.1f} billion elements;"
                    f" there can be {MOST_ELEMENTS / 1e9:.1f} billion in one. Let tiling be exact,"
                    " or take fewer frames in a chunk or smaller crops."
                )
