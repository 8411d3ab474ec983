"""What do later chunks look back at? The keys and values of all frames so far.

They grow with the clip. So they never lie on a device with memory of its own, but in host memory,
or in a file where all else is in one. Those of each chunk are a tensor by themselves: nothing is
copied when more come.
"""

from __future__ import annotations

from torch import Tensor

from ..planning.plan import Plan
from ..program.parts import Attend
from ..program.steps import Step
from .pinned import Pinned
from .stores import allocate
from .task import Pass
from .weights import Weights


class Remembered:
    """Keys and values by the step that looks back at them, oldest first."""

    def __init__(self, weights: Weights, plan: Plan, pinned: Pinned) -> None:
        self._weights, self._place, self._pinned = weights, plan.keys_at, pinned
        self._kept: dict[int, list[Tensor]] = {}

    def of(self, index: int) -> tuple[Tensor, ...]:
        """Those of step `index`, [b, 2c, frames, h, w] for each chunk; none where it does not look
        back.
        """
        return tuple(self._kept.get(index, ()))

    def more(self, index: int, step: Step, at: Pass) -> Tensor | None:
        """Memory for those of one more chunk, to be written; None for a step that does not look
        back.
        """
        mix = step.mix
        if not (isinstance(mix, Attend) and mix.looks_back):
            return None
        shape = at.shape(2 * mix.channels, at.chunk.held(step.src, at.src(step)))
        where = self._weights.dtype, self._weights.device, self._place
        made = allocate(shape, *where, self._pinned)
        self._kept.setdefault(index, []).append(made)
        if at.chunk.share and not mix.column:  # rows that other ranks have made are kept, too
            made.copy_(at.whole(step.src)[:, mix.channels :])
        return made

    def clear(self) -> None:
        """Let go of all of them."""
        self._kept.clear()
