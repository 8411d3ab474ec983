"""How is every step of a run gone through, as things lie now?"""

from __future__ import annotations

import torch

from ..geometry.region import Extent, Interval
from ..program.steps import Program
from ..settings import Place
from . import devices
from .course import Course, course_of, cut_at, cut_inside, packs
from .residence import Residence
from .task import Pass


class Courses:
    """The courses of a run's steps, each made once for as long as its plan stays what it is."""

    def __init__(self, program: Program, residence: Residence, device: torch.device) -> None:
        self._program, self._residence, self._device = program, residence, device
        self._known: dict[tuple[int, Extent, bool, Interval | None], Course] = {}

    def clear(self) -> None:
        """Another plan is followed from now on."""
        self._known.clear()

    def of(self, index: int, at: Pass, rows: Interval | None = None) -> Course:
        """How a step, or some of its rows of cells, is gone through in chunks of the kind of
        `at`.
        """
        key = (index, *at.kind, rows)
        found = self._known.get(key)
        if found is None:
            step, way = self._program.steps[index], self._residence.way(at)
            made = at.extents[step.dst].h
            near = (made - way.places.far_rows(step.dst, made)) // step.side_made
            every = step.cell_extent(at.src(step), at.chunk).h
            whole = at.chunk.rows(step.dst, step.side_made, every)
            parts = cut_at(rows or whole, near)
            if at.chunk.share and near == made // step.side_made:
                parts = cut_inside(step, at.src(step), at.chunk, way.tiles[index], whole)
            found = course_of(step, at.src(step), at.chunk, way.tiles[index], parts)
            self._known[key] = found
        return found

    def packs(self, index: int, at: Pass) -> bool:
        """Whether a step writes a store inside another one row by row, without gaps.

        Such a store lies in the host's memory, and tiles are wide enough; see `course.packs`. Never
        where rows that other ranks need would not be where the next ones are written.
        """
        dst, places = self._program.steps[index].dst, self._residence.way(at).places
        if not packs(self._program, index) or places.has_own_memory(self._program, dst):
            return False
        far = places.of_store(dst) is Place.HOST and devices.accelerates(self._device)
        return far and not at.chunk.share and self.of(index, at).as_wide
