"""Which stores and causal caches shall live on the device, so that the fewest bytes move?

What is on the device at a step must fit beside the tiles of that step: one knapsack for every step,
which a store is in for as long as it lives, and a cache always. The rule:

1. Every byte of a cache saves the same two, one each way. So those of deep levels, of which the
   most fit, stay first; how many of them is tried, one by one or by shares of their bytes. Where
   there are few caches every set of them is.
2. For each of these, and for chunks of each length by themselves, stores are chosen exactly: from
   step to step (`walk`), for every choice of how many quarters of the rows of the few stores that
   live at it are on the device, the least that can have moved so far. What a step moves is what its
   largest tile does that it has room for beside them, halos that are read again included.
3. The best of all is taken.

Bound: no choice of quarters of stores moves less beside the same caches, with tiles of the sizes
that are tried; and with rows and caches cut as finely as one likes, no more than a quarter of the
stores that live at a step, and one share of the caches, each way, would be gained. What is tried
does not depend on the budget, and nothing of it moves more where there is more room: so a larger
budget never moves more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations

from .arrays import Numbers, np
from .ladders import Length
from .limits import NEVER
from .memory import Memory
from .places import Kind, Places, places_of
from .tolls import Tolls, windows_of
from .walk import Walk

_SHARES = 16
"""Parts of all caches' bytes, in steps of which they are kept on the device."""

_FEW = 6
"""Of no more caches than these every set is tried."""


class Search:
    """What is chosen from in chunks of several lengths, whatever the budget.

    sets: of steps whose caches are far away. far: the same as truth values [sets, steps].
    """

    def __init__(self, lengths: Sequence[Length]) -> None:
        self.lengths, self.tolls = lengths, Tolls(lengths)
        self.sets = _cache_choices(lengths)
        self.far: Numbers = np.zeros((len(self.sets), len(self.memory.steps)), bool)
        for row, some in zip(self.far, self.sets, strict=True):
            row[list(some)] = True

    @property
    def memory(self) -> Memory:
        """The arithmetic of the first of them."""
        return self.lengths[0].memories[0]

    @cached_property
    def taken(self) -> Numbers:
        """Bytes of near caches, weights and windows [lengths, sets, steps]."""
        return np.stack([_taken(length, self.far) for length in self.lengths])

    @cached_property
    def moved(self) -> Numbers:
        """Bytes of far caches that all chunks move, for each set."""
        return np.stack([_caches_moved(length, self.far) for length in self.lengths]).sum(0)

    def hopeful(self, rooms: Numbers) -> Numbers:
        """The sets beside which there is room for some tile of every step, and that move no more
        than one beside which all stores are near.
        """
        tolls = self.tolls
        least, near = (
            np.where(self.far, need[:, 1, None], need[:, 0, None])
            for need in (tolls.least, tolls.near + tolls.whole[:, None])
        )
        best = np.where((near <= rooms).all((0, 2)), self.moved, NEVER).min()
        return np.flatnonzero((least <= rooms).all((0, 2)) & (self.moved <= best))


def choose(search: Search, budget: int) -> Mapping[Kind, Places] | None:
    """The places that move the fewest bytes within `budget`; None where usual tiles do not fit even
    with everything away.
    """
    rooms = budget - search.taken
    some = search.hopeful(rooms)
    if not some.size:
        return None
    walk = Walk(search.tolls, search.far[some], rooms[:, some])
    fits = (walk.moved < NEVER).all(0)
    if not fits.any():
        return None
    best = int(np.where(fits, walk.moved.sum(0) + search.moved[some], NEVER).argmin())
    steps, found = search.memory.program.steps, search.sets[int(some[best])]
    paths = frozenset(steps[index].path for index in found)
    return {
        length.kind: _placed(length.memories[0], paths, walk.rows(number, best))
        for number, length in enumerate(search.lengths)
    }


def _placed(memory: Memory, caches: frozenset[str], rows: Mapping[int, int] | None) -> Places:
    """The places with so many rows of each store on the device; None: all of them."""
    bands = memory.places.bands
    if rows is None:
        return places_of(memory.program, frozenset(), caches, bands=bands)
    far = frozenset(store for store, near in rows.items() if near < memory.extents[store].h)
    partly = {store: rows[store] for store in sorted(far) if rows[store]}
    return places_of(memory.program, far, caches, partly, bands)


def _cache_choices(lengths: Sequence[Length]) -> list[frozenset[int]]:
    """Sets of steps whose caches are far away, those of the fewest bytes first."""
    memories = [memory for length in lengths for memory in length.memories]
    sizes = {i: step.cache_bytes for i, step in enumerate(memories[0].steps) if step.cache_bytes}
    if not any(memory.has_past or memory.has_future for memory in memories):
        return [frozenset()]
    if len(sizes) <= _FEW:
        counts = range(len(sizes) + 1)
        found = {frozenset(some) for n in counts for some in combinations(sizes, n)}
    else:
        falling = sorted(sizes, key=lambda index: (-sizes[index], index))
        found = set(_prefixes(falling, sizes))
    return sorted(found, key=lambda some: (sum(sizes[i] for i in some), sorted(some)))


def _prefixes(order: list[int], sizes: Mapping[int, int]) -> Iterator[frozenset[int]]:
    """The first few of an order, from none to all, a share of the bytes further each time."""
    whole, gone, share, total = sum(sizes.values()), frozenset[int](), 0, 0
    yield gone
    for index in order:
        gone, total = gone | {index}, total + sizes[index]
        if total * _SHARES >= (share + 1) * whole or index == order[-1]:
            share = total * _SHARES // whole
            yield gone


def _caches_moved(length: Length, far: Numbers) -> Numbers:
    """Bytes of far caches that all chunks of a length move, for each choice [choices]."""
    passes = sum(
        (memory.has_past + memory.has_future) * count
        for memory, count in zip(length.memories, length.counts, strict=True)
    )
    return passes * (far @ (_cache_bytes(length) + _more(length)))


def _cache_bytes(length: Length) -> Numbers:
    """Of each step [steps]."""
    return np.array([step.cache_bytes for step in length.memories[0].steps], np.int64)


def _more(length: Length) -> Numbers:
    """What turns copy once more of each cache [steps]."""
    memory = length.memories[0]
    return np.array([memory.more_of_cache(i) for i in range(len(memory.steps))], np.int64)


def _taken(length: Length, far: Numbers) -> Numbers:
    """Bytes of near caches, weights and windows while each step runs [sets, steps]."""
    memory, sizes = length.memories[0], np.where(far, 0, _cache_bytes(length))
    made = sizes.cumsum(1)  # new caches, up to a step's own
    kept = sizes.sum(1, keepdims=True) - made + sizes  # old ones, from its own on
    if memory.turns:
        run = memory.turns.bands
        made[:, run.start : run.stop] = made[:, run.stop - 1 : run.stop]
        kept[:, run.start : run.stop] = kept[:, run.start : run.start + 1]
    held = [kept * kind.has_past + made * kind.has_future for kind in length.memories]
    weights = [memory.weight_bytes(index) for index in range(len(memory.steps))]
    return np.maximum.reduce(held) + np.array(weights, np.int64) + windows_of(memory)
