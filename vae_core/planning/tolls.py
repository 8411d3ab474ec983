"""What must there be room for at each step, and what does it move, for each choice of how many rows
of the stores that live are on the device?

1. Tiles of steps become arrays of numbers: what they need where different things are far, and what
   they read.
2. For each choice (see `options`) and each tile there is what it needs beside what is held, and
   what all chunks of a length then move. Bytes that the processor copies, too, count twice.

Nothing but `Tolls.costs` depends on a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from .arrays import Numbers, np
from .bands import heights_of
from .ladders import Ladder, Length
from .limits import NEVER
from .memory import Memory
from .options import NEAR, Course, course_of


class Tolls:
    """Of all steps, for chunks of several lengths side by side.

    memories: the first of each length. course: what there is to choose. starts: where the choices
    of each step begin in `costs`. least: what the tile of a step that needs the least needs; near:
    the same with all stores near; each with the causal cache near and far [lengths, 2, steps].
    """

    def __init__(self, lengths: Sequence[Length]) -> None:
        self.memories = [length.memories[0] for length in lengths]
        self._counts = np.array([sum(length.counts) for length in lengths], np.int64)
        first = self.memories[0]
        self.course = course_of(first.program, first.places.bands, heights_of(first.extents))
        ladders, kinds = _unlike(lengths)
        self._needs, self._reads, self._times = _numbers(ladders)
        self.least: Numbers = self._needs.min((0, 3))[..., kinds]
        self.near: Numbers = self._needs[0, :, :, NEAR][..., kinds]
        tiles = np.array([max(map(_count, some)) for some in ladders])[kinds]
        self._order, self.starts = _sorted(self.course, tiles)
        self._steps = self.course.steps[self._order]
        self._kinds, self._tiles = kinds[self._steps], tiles[self._steps]

    @cached_property
    def whole(self) -> Numbers:
        """Bytes of all stores while each step runs [lengths, steps]."""
        held = [memory.held_stores(False) for memory in self.memories]
        windows = [windows_of(memory) for memory in self.memories]  # rooms are beside them
        return np.array(held, np.int64) - np.array(windows)

    @cached_property
    def _held(self) -> Numbers:
        """Bytes of stores on the device, more than there can be room for where options do not go
        together [lengths, choices].
        """
        stores, rows = self.course.blocks
        extents = self.memories[0].extents
        heights = np.array([extent.h for extent in extents], np.int64)
        sizes = [[one.extent_bytes(s) for s in range(len(extents))] for one in self.memories]
        blocks = np.array(sizes, np.int64)[:, stores] * rows // heights[stores]
        held = np.where(self.course.barred, NEVER, blocks[:, self.course.memory].sum(1))
        return held[:, self._order]

    @cached_property
    def _rungs(self) -> list[tuple[Numbers, Numbers]]:
        """For one tile of each step after the other, what it needs with the causal cache near and
        far [lengths, 2, choices], and what it moves [lengths, choices]; of the steps that have so
        many.
        """
        away, cases = self.course.away[:, self._order], self.course.cases[self._order]
        src, out, added = self._heights[:, self._steps]
        made = self._made[:, :, self._steps]
        others = made[0] * away[1] // out + made[1] * away[2] // added
        found = list[tuple[Numbers, Numbers]]()
        for number, (needs, reads, times) in enumerate(
            zip(self._needs, self._reads, self._times, strict=True)
        ):
            some = slice(int((self._tiles > number).sum()))
            kinds = self._kinds[some]
            moved = reads[:, kinds] * away[0, some] // src[some] + others[:, some]
            found.append((needs[:, :, cases[some], kinds], moved * times[:, kinds]))
        return [(needs, moved * self._counts[:, None]) for needs, moved in found]

    @property
    def _heights(self) -> Numbers:
        """Rows of what each step reads, writes and adds [3, steps]."""
        extents = self.memories[0].extents
        stores = [
            (step.src, step.dst, step.residual.store if step.residual else step.dst)
            for step in self.memories[0].program.steps
        ]
        return np.array([[extents[s].h for s in some] for some in stores], np.int64).T

    @property
    def _made(self) -> Numbers:
        """Bytes that each step writes and adds [2, lengths, steps]."""
        every = [memory.steps for memory in self.memories]
        written = [[step.written_bytes for step in steps] for steps in every]
        return np.array([written, [[step.added_bytes for step in s] for s in every]], np.int64)

    def costs(self, rooms: Numbers, far: Numbers) -> Numbers:
        """The fewest bytes that tiles of each step move for which there is room, `NEVER` where
        there is none for any [lengths, sets, choices]; rooms: beside what is no store [lengths,
        sets, steps]; far: whose caches are, for each set [sets, steps].
        """
        room = rooms[:, :, self._steps] - self._held[:, None]
        gone = far[:, self._steps]
        best: Numbers = np.full(room.shape, NEVER)
        for needs, moved in self._rungs:
            some = slice(moved.shape[1])
            need = np.where(gone[:, some], needs[:, 1, None], needs[:, 0, None])
            fits = need <= room[:, :, some]
            np.minimum(best[:, :, some], moved[:, None], out=best[:, :, some], where=fits)
        return best


def windows_of(memory: Memory) -> Numbers:
    """Bytes of all windows while each step runs [steps]."""
    found = np.zeros(len(memory.steps), np.int64)
    if memory.turns:
        found[memory.turns.bands.start : memory.turns.bands.stop] = memory.windows_bytes
    return found


def _unlike(lengths: Sequence[Length]) -> tuple[list[tuple[Ladder, ...]], Numbers]:
    """The ladders of steps in chunks of all lengths, those that are alike once; and for each step
    which of these it has.
    """
    known: dict[tuple[int, ...], int] = {}
    found, kinds = list[tuple[Ladder, ...]](), list[int]()
    for ladders in zip(*(length.ladders for length in lengths), strict=True):
        number = known.setdefault(tuple(map(id, ladders)), len(found))
        found += [ladders] if number == len(found) else []
        kinds.append(number)
    return found, np.array(kinds)


def _count(ladder: Ladder) -> int:
    return len(ladder.tiles)


def _numbers(ladders: Sequence[tuple[Ladder, ...]]) -> tuple[Numbers, Numbers, Numbers]:
    """What tiles need [tiles, lengths, 2, cases, ladders], what they read, and how often what they
    move counts [tiles, lengths, ladders]; shorter ladders go on with tiles for which there is never
    room.
    """
    most, lengths = max(_count(one) for some in ladders for one in some), len(ladders[0])
    needs: Numbers = np.full((most, lengths, 2, NEAR + 1, len(ladders)), NEVER)
    reads: Numbers = np.zeros((most, lengths, len(ladders)), np.int64)
    times: Numbers = np.ones((most, lengths, len(ladders)), np.int64)
    for number, some in enumerate(ladders):
        for length, ladder in enumerate(some):
            count = _count(ladder)
            needs[:count, length, :, :NEAR, number] = ladder.needs.T
            needs[0, length, :, NEAR, number] = ladder.near.min(1)
            reads[:count, length, number] = ladder.reads
            times[:count, length, number] += ladder.narrow
    return needs, reads, times


def _sorted(course: Course, tiles: Numbers) -> tuple[Numbers, list[int]]:
    """All choices, those of steps with many tiles first; and where those of each step begin."""
    order = np.argsort(-tiles[course.steps], kind="stable")
    sizes = np.bincount(course.steps)
    starts, at = [0] * len(sizes), 0
    for step in np.argsort(-tiles, kind="stable").tolist():
        starts[step], at = at, at + int(sizes[step])
    return order, starts
