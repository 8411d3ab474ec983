"""Does a run keep within what was projected? What it shows is learnt for its next steps and runs.

After each step's first tile, and at its end, the mark of the device's allocator is read:

1. Where the step has raised it above its row of the plan, the libraries took more than they were
   allowed. The allowance of its class is raised, in this run and in the probe's file.
2. Where there is a budget that would not hold then, its next tiles are smaller, and so are those of
   later steps of that class.

The mark is never set back: it is the caller's. So where more was held before the run than the run
takes, nothing is learnt, and nothing is exceeded that was not before.
"""

from __future__ import annotations

import logging

import torch

from ..geometry.region import Extent, Region
from ..planning.classes import mixed
from ..planning.plan import Plan, size_text
from ..planning.workspaces import ConvClass
from ..program.parts import Attend
from ..program.steps import Step
from . import cards, machines
from .task import Pass

_LOG = logging.getLogger("vae_core")

_ROUNDING_BYTES = 2**20
"""An allocator rounds up; so much more than projected is not worth a word."""


class Feedback:
    """What one run shows of its device.

    plan: what the run follows.

    Invariant: `_more` holds for each class that took too much the bytes that it took beyond its
    allowance, for each byte that it read and wrote.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, plan: Plan) -> None:
        self._card = cards.card_for(device)
        self.plan, self._dtype = plan, dtype
        self._before: int | None = None
        self._mark = 0
        self._more: dict[ConvClass, float] = {}

    def begin(self, held_bytes: int) -> None:
        """A chunk begins; held_bytes: of all that is allocated, those that the plan counts."""
        now = self._card.allocated_bytes() if self._card else None
        mark = self._card.peak_bytes() if self._card else None
        self._before = None if now is None or mark is None else now - held_bytes
        self._mark = mark or 0

    def start(self) -> None:
        """Tiles of a step begin: what stores took since those of the step before is no library's
        doing.
        """
        if self._card is not None:
            self._mark = max(self._mark, self._card.peak_bytes() or 0)

    def limit(self, index: int, at: Pass, largest: Extent) -> int | None:
        """The most cells that a tile of step `index` may have; None: as many as `largest`."""
        step = self.plan.job.program.steps[index]
        if isinstance(step.mix, Attend) or not self._more:
            return None
        more = self._more.get(mixed(step), 0.0) * self._data_bytes(step, at, largest.region)
        row = self.plan.rows[index]
        return self._within_budget(index, row.peak_bytes + int(more), largest)

    def check(self, index: int, at: Pass, cells: Region) -> int | None:
        """As `limit`, after tiles of the step have run of which `cells` were the largest."""
        if self._before is None or self._card is None:
            return None
        mark = self._card.peak_bytes() or 0
        if mark <= self._mark:
            return None
        self._mark = mark
        used = mark - self._before
        missing = used - self.plan.rows[index].peak_bytes
        if missing <= _ROUNDING_BYTES:
            return None
        self._learn(index, at, cells, missing)
        return self._within_budget(index, used, cells.extent)

    def _learn(self, index: int, at: Pass, cells: Region, missing: int) -> None:
        step = self.plan.job.program.steps[index]
        _LOG.warning(
            "%s took %s more than projected; its libraries are allowed more from now on",
            step.path,
            size_text(missing),
        )
        if isinstance(step.mix, Attend) or self._card is None:
            return
        kind, data = mixed(step), self._data_bytes(step, at, cells)
        self._more[kind] = max(self._more.get(kind, 0.0), missing / data)
        machines.raise_allowance(self._card, self._dtype, kind, missing, data)

    def _data_bytes(self, step: Step, at: Pass, cells: Region) -> int:
        """Bytes that the convolution of a tile reads and writes."""
        kind, seen = mixed(step), step.seen_region(cells)
        count = kind.in_channels * seen.voxels + kind.out_channels * cells.voxels
        return self.plan.job.batch * count * self._dtype.itemsize

    def _within_budget(self, index: int, used: int, cells: Extent) -> int | None:
        """How many cells keep within the budget, where so many take `used` bytes."""
        budget, row = self.plan.settings.budget_bytes, self.plan.rows[index]
        fixed = row.store_bytes + row.cache_bytes
        if budget is None or used <= budget or used <= fixed:
            return None
        return max(int(cells.voxels * max(budget - fixed, 0) / (used - fixed)), 1)
