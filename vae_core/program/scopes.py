"""Over how much of a clip does a network itself take statistics, whatever a caller asks for?"""

from __future__ import annotations

from .parts import Scope
from .steps import Program


def needs_clip(program: Program) -> bool:
    """Whether some of its statistics are always those of the whole clip."""
    return any(step.norm and step.norm.scope is Scope.CLIP for step in program.steps)
