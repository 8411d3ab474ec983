"""Which steps can go through a picture together, a band of rows after the other, and what of their
stores is there at once?

Where no statistics reach over a picture, a step needs no more of its input than the rows that it
reads. So a run of steps takes turns: the last of them makes the next band of its rows, each of the
others as many rows as that asks for, and every row is computed once. Of a store that the run alone
touches no more is kept than rows that are still to be read: a window, which moves down.

1. `run_of` finds the run of a program: from its last attention to the end of a decoder, from the
   start to its first one in an encoder.
2. `schedule` says for each band which rows of cells each step runs, and where each window lies.

Causal caches of a run's steps are all there while it runs, old ones beside new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..geometry.region import Extent, Interval
from ..program.parts import Attend
from ..program.steps import SOURCE, Program, Step


@dataclass(frozen=True, slots=True)
class Bands:
    """A run of steps, [start, stop), and how many rows of cells its last one makes in a turn."""

    start: int
    stop: int
    rows: int

    @property
    def steps(self) -> range:
        """The steps of the run."""
        return range(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Band:
    """One turn. cells: rows of cells for each step of the run, some of them empty (None). windows:
    rows of each store that the run alone touches, while the turn lasts.
    """

    cells: tuple[Interval | None, ...]
    windows: Mapping[int, Interval]


def run_of(program: Program) -> tuple[int, int] | None:
    """The steps that go together, [start, stop); None where statistics are gathered, or of too few
    steps.
    """
    if program.measures:
        return None
    apart = [i for i, step in enumerate(program.steps) if isinstance(step.mix, Attend)]
    count = len(program.steps)
    start, stop = (0, min(apart, default=count)) if program.encodes else (_after(apart), count)
    return (start, stop) if stop - start > 2 else None


def _after(apart: list[int]) -> int:
    return max(apart, default=-1) + 1


@lru_cache(maxsize=64)
def rolled(program: Program, start: int, stop: int) -> frozenset[int]:
    """The stores that nothing but the steps [start, stop) touches."""
    inside, outside = set[int](), {SOURCE, program.sink}
    for index, step in enumerate(program.steps):
        touched = {step.src, step.dst, step.residual.store if step.residual else step.src}
        (inside if start <= index < stop else outside).update(touched)
    return frozenset(inside - outside)


@lru_cache(maxsize=64)
def schedule(program: Program, bands: Bands, heights: tuple[int, ...]) -> tuple[Band, ...]:
    """The turns of a run where stores have `heights` rows; none where a step would write over what
    another is still to read.
    """
    lanes = [_lane(program.steps[index], heights) for index in bands.steps]
    whole = [lane.height for lane in lanes]
    done, found = [0] * len(lanes), list[Band]()
    stores = rolled(program, bands.start, bands.stop)
    while done != whole:
        last = min(done[-1] + bands.rows, whole[-1])
        goal = [max(now, then) for now, then in zip(done, _goal(lanes, last), strict=True)]
        if goal[-1] == whole[-1]:
            goal = whole
        if not _is_safe(lanes, goal):
            return ()
        cells = tuple(
            Interval(now, then) if now < then else None
            for now, then in zip(done, goal, strict=True)
        )
        windows = _windows(lanes, done, goal)
        found.append(Band(cells, {s: Interval(*windows[s]) for s in windows if s in stores}))
        done = goal
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A step as far as rows are concerned.

    src, dst, added: stores; added -1: none. each: rows of dst for each of the added ones. side:
    rows of dst for each row of cells. height: rows of cells. below: rows of src. stride, before,
    seen: the first row of src that a row of cells sees is stride * row - before, of so many.
    """

    src: int
    dst: int
    added: int
    each: int
    side: int
    height: int
    below: int
    stride: int
    before: int
    seen: int

    def first(self, row: int) -> int:
        """The first row of src that a row of cells, and those below it, see."""
        return max(row * self.stride - self.before, 0)

    def stop(self, rows: int) -> int:
        """Rows of src that the first rows of cells see."""
        return min((rows - 1) * self.stride - self.before + self.seen, self.below)


def _lane(step: Step, heights: tuple[int, ...]) -> _Lane:
    added, below = step.residual.store if step.residual else -1, heights[step.src]
    residual, side = step.residual, step.side_made
    each = residual.fold.side if residual and residual.fold else 1
    ends = (step.src, step.dst, added, each)
    if step.upscale == 2:  # a 3x3 convolution of what is shown twice sees all neighbours
        return _Lane(*ends, side, below, below, 1, 1, 3)
    mix = step.mix
    height = mix.size(below)
    return _Lane(*ends, side, height, below, mix.stride, mix.pad.before, mix.kernel)


def _is_safe(lanes: Sequence[_Lane], goal: Sequence[int]) -> bool:
    """Whether what steps have written over a store by the end of a turn has been read by all that
    come before them.
    """
    readers: dict[int, int] = {}
    for lane, then in zip(lanes, goal, strict=True):
        written = then * lane.side
        if lane.added == lane.dst and written > readers.get(lane.dst, written):
            return False
        readers.pop(lane.dst, None)
        if then < lane.height:
            _lower(readers, lane.src, lane.first(then))
            _lower(readers, lane.added, written // lane.each)
    return True


def _lower(found: dict[int, int], store: int, row: int) -> None:
    found[store] = min(found.get(store, row), row)


def _goal(lanes: Sequence[_Lane], last: int) -> list[int]:
    """How many rows of cells each step must have made for the last one to make `last`."""
    goal, needed = [0] * len(lanes), dict[int, int]()
    for index in reversed(range(len(lanes))):
        lane = lanes[index]
        rows = -(-needed.pop(lane.dst, 0) // lane.side)
        goal[index] = min(last if index == len(lanes) - 1 else rows, lane.height)
        if goal[index]:
            needed[lane.src] = max(needed.get(lane.src, 0), lane.stop(goal[index]))
            added = -(-goal[index] * lane.side // lane.each)
            needed[lane.added] = max(needed.get(lane.added, 0), added)
    return goal


def _windows(
    lanes: Sequence[_Lane], done: Sequence[int], goal: Sequence[int]
) -> dict[int, tuple[int, int]]:
    """The rows of each store from the first that a step is still to read or write in this turn or
    later, to the last that there is after it.
    """
    found: dict[int, tuple[int, int]] = {}
    for lane, now, then in zip(lanes, done, goal, strict=True):
        if then:
            _widen(found, lane.dst, now * lane.side, then * lane.side)
        if now < lane.height:
            first = lane.first(now)
            _widen(found, lane.src, first, first + 1)
            added = now * lane.side // lane.each
            _widen(found, lane.added, added, added + 1)
    return found


def _widen(found: dict[int, tuple[int, int]], store: int, start: int, stop: int) -> None:
    one, other = found.get(store, (start, stop))
    found[store] = min(one, start), max(other, stop)


@dataclass(frozen=True, slots=True)
class Turns:
    """What all turns of a run come to.

    rows: for each store that the run alone touches, the most of its rows that are there at once.
    made, read: for each step of the run the most rows of cells that it makes in a turn, and the
        rows of its source that all turns read.
    """

    bands: Bands
    rows: Mapping[int, int]
    made: tuple[int, ...]
    read: tuple[int, ...]


@lru_cache(maxsize=64)
def turns_of(program: Program, bands: Bands, heights: tuple[int, ...]) -> Turns | None:
    """The same where stores have `heights` rows; None where there can be no turns."""
    turns = schedule(program, bands, heights)
    if not turns:
        return None
    rows, made, read = dict[int, int](), list[int](), list[int]()
    for turn in turns:
        for store, window in turn.windows.items():
            rows[store] = max(rows.get(store, 0), window.size)
    for number, index in enumerate(bands.steps):
        lane = _lane(program.steps[index], heights)
        parts = [cells for turn in turns for cells in [turn.cells[number]] if cells]
        made.append(max(cells.size for cells in parts))
        read.append(sum(lane.stop(cells.stop) - lane.first(cells.start) for cells in parts))
    return Turns(bands, rows, tuple(made), tuple(read))


def heights_of(extents: Sequence[Extent]) -> tuple[int, ...]:
    """Rows of stores: all that turns depend on."""
    return tuple(extent.h for extent in extents)
