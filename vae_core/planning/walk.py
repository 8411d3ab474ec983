"""How many rows of each store are on the device in the choice that moves the fewest bytes?

A walk goes from step to step through chunks of several lengths, for several choices of caches, side
by side in arrays [lengths, choices, ...] of whole numbers. At each step the array has an axis for
every store that lives, of its options: how many rows of it are on the device.

1. Where a step writes a new store, the array gets its axis. A store inside another one has as much
   on the device as that has; or memory of its own, where that one has nothing there.
2. What there is no room for at a step is ruled out; what it moves is added.
3. A store that no later step touches leaves: of its options the best is kept, for each choice of
   the others, and noted.

So the way back through the notes finds what is best for the whole (dynamic programming).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..program.parts import Attend
from ..program.steps import Program, Step
from .arrays import Numbers, np
from .ladders import Ladder, Length
from .limits import NEVER
from .memory import Memory

_PARTS = 4
"""A store has none of its rows on the device, or as many of so many parts."""


@dataclass(frozen=True, slots=True)
class _Options:
    """What may become of a store.

    rows: on the device. away: the others. held: bytes on the device [lengths, options]; beside: the
    same while the store that it may lie in lives too. shared: whether it has them in that one's
    memory.
    """

    rows: Numbers
    away: Numbers
    held: Numbers
    beside: Numbers
    shared: Numbers


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Tiles of a step: what they need with caches near or far, for each of `SIDES` and where dst is
    cut [lengths, 2, 4, tiles]; what they read [lengths, tiles].
    """

    needs: Numbers
    reads: Numbers


@dataclass(frozen=True, slots=True)
class Rungs:
    """All of them: those that are as wide as the picture and then others, if there are any. near:
    what there must be room for with all near [lengths, 2].
    """

    tiles: tuple[_Tiles, ...]
    near: Numbers


@dataclass(frozen=True, slots=True)
class _Note:
    """A store has left. others: that lived on. best: its best option for each choice of theirs."""

    store: int
    others: tuple[int, ...]
    best: Numbers


class Walk:
    """See the module's words.

    moved: the fewest bytes of stores that chunks of each length move [lengths, choices]; `NEVER`
        where there is no room.
    """

    def __init__(
        self,
        lengths: Sequence[Length],
        rungs: Sequence[Rungs],
        far_caches: Numbers,
        rooms: Numbers,
    ) -> None:
        self._lengths, self._rungs = lengths, rungs
        self._far, self._rooms = far_caches.astype(int), rooms
        self._memories = [length.memories[0] for length in lengths]
        self._program: Program = self._memories[0].program
        self._counts = np.array([sum(length.counts) for length in lengths], np.int64)
        self._lives = _lives(self._memories[0])
        self._options: dict[int, _Options] = {}
        self._axes: list[int] = []
        self._notes: list[_Note] = []
        self._whole = self._fits_whole()
        self.moved: Numbers = np.where(self._whole, 0, self._walked())

    def rows(self, length: int, choice: int) -> dict[int, int] | None:
        """How many rows of each store are on the device in chunks of a length; None where all
        are.
        """
        if self._whole[length, choice]:
            return None
        at: dict[int, int] = {}
        for note in reversed(self._notes):
            place = (length, choice, *(at[store] for store in note.others))
            at[note.store] = int(note.best[place])
        return {store: int(self._options[store].rows[option]) for store, option in at.items()}

    def _fits_whole(self) -> Numbers:
        """Whether all stores can be on the device [lengths, choices]."""
        held = np.array([memory.held_stores(False) for memory in self._memories], np.int64)
        held -= np.stack([windows_of(memory) for memory in self._memories])  # rooms are beside them
        found = np.ones(self._rooms.shape[:2], bool)
        for index, rungs in enumerate(self._rungs):
            needs = rungs.near[:, self._far[:, index]]
            found &= held[:, index, None] + needs <= self._rooms[:, :, index]
        return found

    def _walked(self) -> Numbers:
        moved: Numbers = np.zeros(self._rooms.shape[:2], np.int64)
        for index, step in enumerate(self._program.steps):
            for store in self._lives.entering.get(index, ()):
                moved = self._entered(moved, store)
            moved = self._stepped(moved, index, step)
            for store in self._lives.leaving.get(index, ()):
                axis = self._axes.index(store)
                self._axes.remove(store)
                self._notes.append(_Note(store, tuple(self._axes), moved.argmin(axis + 2)))
                moved = moved.min(axis + 2)
        return moved

    def _entered(self, moved: Numbers, store: int) -> Numbers:
        """With an axis for a new store."""
        outer = self._inside(store)
        inside = self._options[outer] if outer is not None and outer in self._axes else None
        options = self._options[store] = self._options_of(store, inside)
        self._axes.append(store)
        if inside is None or outer is None:
            return np.broadcast_to(moved[..., None], (*moved.shape, len(options.rows)))
        alike = (inside.rows[:, None] == options.rows) & options.shared
        apart = (inside.rows[:, None] == 0) & ~options.shared
        return np.where(self._along(alike | apart, (outer, store)), moved[..., None], NEVER)

    def _inside(self, store: int) -> int | None:
        """The store that another may lie in; one that is written in turns lies in none."""
        return None if store in self._lives.turning else self._program.stores[store].inside

    def _options_of(self, store: int, inside: _Options | None) -> _Options:
        """The options of a new store; inside: those of the one that it may lie in."""
        memory = self._memories[0]
        rows, height = _parts_of(self._program, memory, store), memory.extents[store].h
        sizes = np.array([one.extent_bytes(store) for one in self._memories], np.int64)
        own = np.outer(sizes, rows) // height
        if inside is None:
            return _Options(rows, height - rows, own, own, np.zeros(len(rows), bool))
        some = inside.rows > 0
        rows, held = np.append(rows, inside.rows[some]), inside.held[:, some]
        shared = np.arange(len(rows)) >= own.shape[1]
        beside = np.concatenate([own, np.zeros_like(held)], 1)
        return _Options(rows, height - rows, np.concatenate([own, held], 1), beside, shared)

    def _along(self, values: Numbers, stores: Sequence[int], leading: int = 0) -> Numbers:
        """Values [..., options of each of `stores`] among the axes of all; leading: axes that come
        before those. `stores` are in the order of the axes.
        """
        places = {self._axes.index(store): n for n, store in enumerate(stores)}
        sides = (
            values.shape[leading + places[axis]] if axis in places else 1
            for axis in range(len(self._axes))
        )
        return values.reshape(*values.shape[:leading], *sides)

    def _held(self) -> Numbers:
        """Bytes of stores on the device, for every choice of their options [lengths, 1, ...]."""
        held: Numbers = np.zeros((len(self._lengths), *[1] * len(self._axes)), np.int64)
        for store in self._axes:
            options = self._options[store]
            size = options.beside if self._inside(store) in self._axes else options.held
            held = held + self._along(size, (store,), 1)
        return held[:, None]

    def _away(self, store: int | None, height: int) -> Numbers:
        """Rows of a store that are away, for each of its options; all of the ends, and none of what
        is there in windows.
        """
        if store is None or store in self._memories[0].places.rolled:
            return np.zeros((), np.int64)
        if store not in self._axes:
            return np.array(height)
        return self._along(self._options[store].away, (store,))

    def _stepped(self, moved: Numbers, index: int, step: Step) -> Numbers:
        """What has moved after a step."""
        residual = step.residual.store if step.residual else None
        stores = (step.src, step.dst, step.dst if residual is None else residual)
        src, dst, add = (self._memories[0].extents[store].h for store in stores)
        read, written, added = (
            self._away(store, rows)
            for store, rows in ((step.src, src), (step.dst, dst), (residual, add))
        )
        many = (..., *[None] * len(self._axes))
        room = self._rooms[:, :, index][many] - self._held()
        near = room >= self._rungs[index].near[:, self._far[:, index]][many]
        if not any(rows.ndim or rows for rows in (read, written, added)):
            return np.where(near, moved, NEVER)
        cut = np.asarray((written > 0) & (written < dst))
        sides = np.where(read == 0, 1, np.where(written + added == 0, 0, 2))
        case = np.where(cut, 3, sides)
        if not case.ndim:  # of a step that touches no store with options
            case = case.reshape([1] * len(self._axes))
        steps = [memory.steps[index] for memory in self._memories]
        writes = np.array([[one.written_bytes] for one in steps], np.int64)[many]
        adds = np.array([[one.added_bytes] for one in steps], np.int64)[many]
        others = writes * written // dst + adds * added // add
        least = np.array(NEVER)
        for times, reads in enumerate(self._read(index, room, case), start=1):
            fits = reads < NEVER
            cost = times * (np.where(fits, reads, 0) * read // src + others)
            least = np.minimum(least, np.where(fits, cost, NEVER))
        far = read + written + added > 0
        fits = np.where(far, least < NEVER, near)
        cost = np.where(far & fits, least, 0) * self._counts[:, None][many]
        return np.where(fits & (moved < NEVER), moved + cost, NEVER)

    def _read(self, index: int, room: Numbers, case: Numbers) -> Iterator[Numbers]:
        """What tiles read that there is room for, those as wide as the picture and then narrower
        ones, which the processor copies, too: `NEVER` where there is none. case: which of `SIDES`
        are far, or 3 where dst is cut.
        """
        far, many = self._far[:, index], (slice(None), slice(None), *[None] * len(self._axes))
        for rungs in self._rungs[index].tiles:
            fitting = rungs.needs[:, far][:, :, case] <= room[..., None]
            yield np.where(fitting, rungs.reads[:, None][many], NEVER).min(-1)


def windows_of(memory: Memory) -> Numbers:
    """Bytes of all windows while each step runs [steps]."""
    found = np.zeros(len(memory.steps), np.int64)
    if memory.turns:
        found[memory.turns.bands.start : memory.turns.bands.stop] = memory.windows_bytes
    return found


@dataclass(frozen=True, slots=True)
class _Lives:
    """Which stores come before a step, and go after it. turning: those that are written in turns,
    which have memory of their own.
    """

    entering: Mapping[int, list[int]]
    leaving: Mapping[int, list[int]]
    turning: frozenset[int]


def _lives(memory: Memory) -> _Lives:
    """Of all stores but the ends and windows: what steps in turns touch lives through all turns."""
    program, places = memory.program, memory.places
    run = places.bands.steps if places.bands else range(0)
    first, last = dict[int, int](), dict[int, int]()
    for index, step in enumerate(program.steps):
        first.setdefault(step.dst, run.start if index in run else index)
    for store, index in program.last_use().items():
        last[store] = max(index, run.stop - 1) if _turns_touch(program, run, store) else index
    entering, leaving = dict[int, list[int]](), dict[int, list[int]]()
    for store, index in first.items():
        if store != program.sink and store not in places.rolled:
            entering.setdefault(index, []).append(store)
            leaving.setdefault(last[store], []).append(store)
    turning = frozenset(program.steps[index].dst for index in run)
    return _Lives(entering, leaving, turning)


def _turns_touch(program: Program, run: range, store: int) -> bool:
    steps = (program.steps[index] for index in run)
    return any(
        store in (step.src, step.dst)
        or (step.residual is not None and step.residual.store == store)
        for step in steps
    )


def rungs_of(lengths: Sequence[Length]) -> tuple[Rungs, ...]:
    """Of each step; steps that are alike have the same."""
    known: dict[tuple[int, ...], Rungs] = {}
    found: list[Rungs] = []
    for ladders in zip(*(length.ladders for length in lengths), strict=True):
        key = tuple(map(id, ladders))
        if key not in known:
            known[key] = _of_step(ladders)
        found.append(known[key])
    return tuple(found)


def _of_step(ladders: Sequence[Ladder]) -> Rungs:
    """The numbers of a step's ladders."""
    sorts = (_tiles_of(ladders, narrow=narrow) for narrow in (False, True))
    near = np.array([[min(some) for some in ladder.near] for ladder in ladders], np.int64)
    return Rungs(tuple(tiles for tiles in sorts if tiles.reads.size), near)


def _tiles_of(ladders: Sequence[Ladder], *, narrow: bool) -> _Tiles:
    """Those tiles of each ladder that are narrow, or not; shorter ones go on with tiles for which
    there is no room.
    """
    places = [[i for i, is_so in enumerate(one.narrow) if is_so is narrow] for one in ladders]
    longest = max(map(len, places))

    def filled(numbers: Sequence[int], some: list[int]) -> list[int]:
        return [*(numbers[i] for i in some), *[NEVER] * (longest - len(some))]

    both, needs = tuple(zip(ladders, places, strict=True)), list[list[list[list[int]]]]()
    for ladder, some in both:
        every = (*ladder.needs, ladder.cut)
        needs.append([[filled(need[far], some) for need in every] for far in range(2)])
    reads = [filled(ladder.reads, some) for ladder, some in both]
    return _Tiles(np.array(needs, np.int64), np.array(reads, np.int64))


def _parts_of(program: Program, memory: Memory, store: int) -> Numbers:
    """Rows of a store that may be on the device: none, all, and parts between them where steps can
    read and write them by themselves.
    """
    height = memory.extents[store].h
    if any(step.src == store and isinstance(step.mix, Attend) for step in program.steps):
        return np.array([0, height])
    side = max(step.side_made for step in program.steps if step.dst == store)
    parts = {height * part // _PARTS // side * side for part in range(_PARTS)}
    return np.array([*sorted(parts), height])
