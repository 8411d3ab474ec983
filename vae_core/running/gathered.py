"""What is kept of each chunk where a step needs what it reads of all chunks at once?

The steps before that one run over all of the clip first. What they leave for it and for later steps
is kept here, in host memory, or in a file where all else is in one, since it grows with the clip.
Then the chunks come once more, from that step on.
"""

from __future__ import annotations

from torch import Tensor

from ..planning.plan import Plan
from ..program.parts import Attend
from ..program.steps import Program, Step
from .pinned import Pinned
from .stores import allocate
from .task import Pass
from .weights import Weights


class AllChunks:
    """The stores that cross a program's barrier, chunk by chunk."""

    def __init__(self, program: Program, weights: Weights, plan: Plan, pinned: Pinned) -> None:
        self._program, self._weights = program, weights
        self._place, self._pinned = plan.keys_at, pinned
        self._chunks: list[dict[int, Tensor]] = []

    def keep(self, at: Pass) -> None:
        """Keep copies of what crosses the barrier in a chunk, the next one."""
        where = self._weights.dtype, self._weights.device, self._place
        kept: dict[int, Tensor] = {}
        for store in self._program.crossing:
            x = at.whole(store)
            kept[store] = allocate(tuple(x.shape), *where, self._pinned)
            kept[store].copy_(x)
        self._chunks.append(kept)

    def of(self, index: int) -> dict[int, Tensor]:
        """What was kept of chunk `index`, by store."""
        return self._chunks[index] if self._chunks else {}

    def keys(self, step: Step) -> tuple[Tensor, ...]:
        """Keys and values of all chunks for a step that looks ahead, [b, 2c, frames, h, w] each."""
        mix = step.mix
        if not (isinstance(mix, Attend) and mix.looks_ahead):
            return ()
        return tuple(kept[step.src][:, mix.channels :] for kept in self._chunks)

    def clear(self) -> None:
        """Let go of all of it."""
        self._chunks.clear()
