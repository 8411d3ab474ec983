"""What may become of each store, and what can be chosen together while each step runs?

1. A store has none of its rows on the device, or some quarters of them. One inside another has as
   much there as that has, in its memory; or memory of its own, where that one has nothing there.
2. While a step runs there is an axis for every store that lives, of its options. The choices of all
   steps lie one behind the other in flat arrays.

All of this depends on a program, on the heights of its stores and on which steps take turns; not on
budgets, lengths of chunks or tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ..program.parts import Attend
from ..program.steps import Program, Step
from .arrays import Numbers, np
from .bands import Bands, rolled

_PARTS = 4
"""A store has none of its rows on the device, or as many of so many parts."""

READ, WRITTEN, BOTH, CUT, NEAR = range(5)
"""What a step has far away: what it reads, what it writes or adds, both, both with a part of what
it writes near, or nothing.
"""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A store that goes after a step: its axis then, and the stores of the others."""

    store: int
    axis: int
    others: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """What there is to choose while a step runs: the stores of its axes, how many of them have just
    come, which of them go after it, and how many options each has.
    """

    axes: tuple[int, ...]
    entering: int
    leaving: tuple[Leaving, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many choices there are."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Course:
    """The choices while each step runs, those of the first one first.

    stages: of each step. rows: on the device, for each option of a store.
    blocks: of memory, each a store and so many of its rows [2, blocks].
    steps: the step of each choice. memory: the blocks that it takes [axes, choices]. away: rows
        that are away of what the step reads, writes and adds [3, choices]. cases: `READ` and so on.
        barred: whether options do not go together.
    """

    stages: tuple[Stage, ...]
    rows: Mapping[int, tuple[int, ...]]
    blocks: Numbers
    steps: Numbers
    memory: Numbers
    away: Numbers
    cases: Numbers
    barred: Numbers


def course_of(program: Program, bands: Bands | None, heights: tuple[int, ...]) -> Course:
    """The choices in a program whose stores have so many rows; bands: steps that take turns."""
    run = bands.steps if bands else range(0)
    return _course(program, run.start, run.stop, heights)


@lru_cache(maxsize=32)
def _course(program: Program, start: int, stop: int, heights: tuple[int, ...]) -> Course:
    lives = _lives(program, range(start, stop))
    options = _Options(program, lives, heights)
    stages = tuple(_stages(program, lives, options))
    sizes = [stage.size for stage in stages]
    chosen: Numbers = np.zeros((3 + max(len(one.shape) for one in stages), sum(sizes)), np.int64)
    barred, at = np.zeros(sum(sizes), bool), 0
    for step, stage, size in zip(program.steps, stages, sizes, strict=True):
        options.choose(stage, step, chosen[:, at : at + size], barred[at : at + size])
        at += size
    away: Numbers = np.array(options.away, np.int64)[chosen[:3]]
    written = np.repeat([heights[step.dst] for step in program.steps], sizes)
    return Course(
        stages,
        {store: tuple(option.rows for option in some) for store, some in options.known.items()},
        np.array(options.blocks, np.int64).T,
        np.repeat(np.arange(len(sizes)), sizes),
        np.array(options.memory)[chosen[3:]],
        away,
        _cases(away, written),
        barred,
    )


def _cases(away: Numbers, heights: Numbers) -> Numbers:
    """`READ` and so on; heights: rows of what is written."""
    read, written, added = away
    sides = np.where(written + added == 0, np.where(read == 0, NEAR, READ), BOTH)
    sides = np.where((read == 0) & (sides == BOTH), WRITTEN, sides)
    return np.where((written > 0) & (written < heights), CUT, sides)


@dataclass(frozen=True, slots=True)
class _Lives:
    """Which stores come before a step, and go after it. turning: those that are written in turns,
    which have memory of their own. rolled: those of which there are windows.
    """

    entering: Mapping[int, list[int]]
    leaving: Mapping[int, list[int]]
    turning: frozenset[int]
    rolled: frozenset[int]


def _lives(program: Program, run: range) -> _Lives:
    """Of all stores but the ends and windows: what steps in turns touch lives through all turns."""
    first, last = dict[int, int](), dict[int, int]()
    windows = rolled(program, run.start, run.stop) if run else frozenset[int]()
    for index, step in enumerate(program.steps):
        first.setdefault(step.dst, run.start if index in run else index)
    for store, index in program.last_use().items():
        last[store] = max(index, run.stop - 1) if _turns_touch(program, run, store) else index
    entering, leaving = dict[int, list[int]](), dict[int, list[int]]()
    for store, index in first.items():
        if store != program.sink and store not in windows:
            entering.setdefault(index, []).append(store)
            leaving.setdefault(last[store], []).append(store)
    turning = frozenset(program.steps[index].dst for index in run)
    return _Lives(entering, leaving, turning, windows)


def _turns_touch(program: Program, run: range, store: int) -> bool:
    steps = (program.steps[index] for index in run)
    return any(
        store in (step.src, step.dst)
        or (step.residual is not None and step.residual.store == store)
        for step in steps
    )


@dataclass(frozen=True, slots=True)
class _Option:
    """rows: of a store that are on the device. block: the memory that it has there. shared: whether
    that is the memory of the store that it lies in.
    """

    rows: int
    block: int
    shared: bool = False


class _Options:
    """The options of all stores, which have one number after the other; number 0 is nothing.

    known: those of each store. blocks: of memory that they have. away: rows for each number;
    memory: the block that it takes.
    """

    def __init__(self, program: Program, lives: _Lives, heights: tuple[int, ...]) -> None:
        self._program, self._lives, self._heights = program, lives, heights
        self.known: dict[int, tuple[_Option, ...]] = {}
        self.blocks: list[tuple[int, int]] = [(0, 0)]
        self.away, self.memory = [0], [0]
        self._firsts: dict[tuple[int, bool], int] = {}

    def outer(self, store: int) -> int | None:
        """The store that another may lie in; one that is written in turns lies in none."""
        return None if store in self._lives.turning else self._program.stores[store].inside

    def enter(self, store: int, outer: int | None) -> None:
        """A store comes; outer: the one that it may lie in, if that lives."""
        own = [_Option(rows, self._block(store, rows)) for rows in self._parts(store)]
        around = self.known[outer] if outer is not None else ()
        shared = (_Option(one.rows, one.block, shared=True) for one in around if one.rows)
        self.known[store] = options = (*own, *shared)
        for beside in (False, True):  # where that one lives, it takes that memory
            self._firsts[store, beside] = len(self.away)
            self.away += [self._heights[store] - option.rows for option in options]
            self.memory += [0 if beside and one.shared else one.block for one in options]

    def _block(self, store: int, rows: int) -> int:
        self.blocks.append((store, rows))
        return len(self.blocks) - 1

    def _parts(self, store: int) -> list[int]:
        """Rows of a store that may be on the device: none, all, and parts between them where steps
        can read and write them by themselves.
        """
        height, steps = self._heights[store], self._program.steps
        if any(step.src == store and isinstance(step.mix, Attend) for step in steps):
            return [0, height]
        side = max(step.side_made for step in steps if step.dst == store)
        return [*sorted({height * part // _PARTS // side * side for part in range(_PARTS)}), height]

    def choose(self, stage: Stage, step: Step, chosen: Numbers, barred: Numbers) -> None:
        """Fill in the numbers of what a step reads, writes and adds and of all axes [3 + axes,
        choices], and which choices do not go together [choices].
        """
        axes, places = stage.axes, _grid(stage.shape)
        lies = {store: outer for store in axes if (outer := self.outer(store)) in axes}
        for store in axes[len(axes) - stage.entering :]:
            if store in lies:
                pair = (places[axes.index(one)] for one in (lies[store], store))
                barred |= ~self._together(lies[store], store)[tuple(pair)]
        firsts = np.array([self._firsts[store, store in lies] for store in axes], np.int64)
        numbers = chosen[3 : 3 + len(axes)]
        numbers[:] = places + firsts[:, None]
        residual = step.residual.store if step.residual else None
        for row, store in enumerate((step.src, step.dst, residual)):
            chosen[row] = numbers[axes.index(store)] if store in axes else self._end(store)

    def _together(self, outer: int | None, store: int) -> Numbers:
        """Which options of two stores go together, of which the other lies in the one."""
        pairs = [
            [one.rows == (other.rows if other.shared else 0) for other in self.known[store]]
            for one in self.known[outer or 0]
        ]
        return np.array(pairs)

    def _end(self, store: int | None) -> int:
        """The number of what is no axis: an end is all away, a window is there."""
        if store is None or store in self._lives.rolled:
            return 0
        if (store, False) not in self._firsts:
            self._firsts[store, False] = len(self.away)
            self.away.append(self._heights[store])
            self.memory.append(0)
        return self._firsts[store, False]


@lru_cache(maxsize=256)
def _grid(shape: tuple[int, ...]) -> Numbers:
    """The place of every choice along every axis [axes, choices]."""
    return np.indices(shape).reshape(len(shape), prod(shape))


def _stages(program: Program, lives: _Lives, options: _Options) -> Iterator[Stage]:
    """What there is to choose while each step runs."""
    axes: list[int] = []
    for index in range(len(program.steps)):
        new = lives.entering.get(index, [])
        for store in new:
            outer = options.outer(store)
            options.enter(store, outer if outer in axes else None)
            axes.append(store)
        here, leaving = tuple(axes), list[Leaving]()
        for store in lives.leaving.get(index, ()):
            axis = axes.index(store)
            axes.remove(store)
            leaving.append(Leaving(store, axis, tuple(axes)))
        shape = tuple(len(options.known[store]) for store in here)
        yield Stage(here, len(new), tuple(leaving), shape)
