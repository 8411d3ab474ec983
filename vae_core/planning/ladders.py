"""Which tiles may a step take in chunks of one length, what do they need, and what do they read?

1. Tiles shrink by a good part from one to the next that is tried, down to the usual one. Beside
   them there are flat ones with all frames.
2. None takes more than is preferred, if the usual one does not.
3. What they need is worked out with all stores far away, which is the most that it can be; for the
   step that has them all on the device it is the least of any tile, since none copies more then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from ..geometry.region import Extent
from .arrays import Numbers, np
from .memory import Memory
from .options import CUT, NEAR
from .places import Far, Kind
from .step_bytes import Flags, StepBytes

_SHARE = 0.75
"""Voxels of a tile that is tried next, as a share of the last one's, at the most."""


class Usable(NamedTuple):
    """The tiles that a step may use, each the next smaller one: where stores are far, flat ones
    beside any, and where all are near.
    """

    bands: tuple[Extent, ...]
    flat: tuple[Extent, ...]
    others: tuple[Extent, ...]


Flows = frozenset[tuple[bool, bool]]
"""Whether causal caches come from a chunk before, and go on to one after, in chunks of a length."""


SIDES = ((True, False), (False, True), (True, True))
"""What may be far of what a step reads, and of what it writes and adds: `options.READ`, `WRITTEN`
and `BOTH`.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Ladder:
    """The tiles that one step may use in chunks of one length, each the next smaller one.

    needs: bytes that they take where those of `SIDES` are far, or dst is `CUT`, with the causal
        cache near and far [cases, 2, tiles]. reads: bytes of src that all tiles of a size read.
        narrow: whether they are narrower than the picture, so that the processor copies, too, what
        they move.
    others: the tiles with all stores near, and near: what they need [2, others].
    """

    step: StepBytes
    tiles: tuple[Extent, ...]
    needs: Numbers
    reads: tuple[int, ...]
    narrow: tuple[bool, ...]
    others: tuple[Extent, ...]
    near: Numbers

    def tile(self, room: int, far: Far, preferred: int) -> Extent:
        """The one that copies least, of those that there is room for; where nothing is far, the
        largest that takes no more than is preferred, if there is one.
        """
        if not far.store:
            near = list(zip(self.near[int(far.cache)].tolist(), self.others, strict=True))
            easy = (tile for need, tile in near if need <= min(room, preferred))
            return next(easy, None) or min(near, key=lambda item: item[0])[1]
        sides = far.src > 0, far.dst + far.added > 0
        needs = self.needs[CUT if far.cut else SIDES.index(sides), int(far.cache)].tolist()
        some = (tile for need, tile in zip(needs, self.tiles, strict=True) if need <= room)
        return min(some, key=lambda tile: self.step.cost(tile, far))


@dataclass(frozen=True, slots=True)
class Length:
    """Chunks of one length. memories: their kinds, with what takes turns in its place. counts: of
    chunks of each of those. ladders: the tiles of each step.
    """

    memories: tuple[Memory, ...]
    counts: tuple[int, ...]
    ladders: tuple[Ladder, ...]

    @property
    def kind(self) -> Kind:
        """What its chunks are."""
        return self.memories[0].kind


@lru_cache(maxsize=2048)
def ladder_of(step: StepBytes, flows: Flows, usable: Usable, preferred: int, most: Far) -> Ladder:
    """The ladder of a step, made once; preferred: bytes that no tile needs to take more than; most:
    all that may be far.
    """
    tiles, others = _thinned(usable.bands), _thinned(usable.others)
    sides = [
        Far(most.src * src, most.dst * out, most.added * out, cache=True, cut=most.cut)
        for src, out in SIDES
    ]
    every = (*sides, replace(most, cut=True), Far(cache=True, cut=most.cut))
    sizes = (*others, *usable.flat, *tiles)
    needs = _needs(step, flows, sizes, every)
    last, first = len(others), len(others) + len(usable.flat)
    # without those that take more than is preferred, if not all do
    easy = np.flatnonzero(needs[len(SIDES) - 1, 1, first:] <= preferred).tolist() or [-1]
    some = [*range(first + easy[0] % len(tiles), len(sizes)), *range(last, first)]
    return Ladder(
        step,
        tuple(sizes[i] for i in some),
        needs[:NEAR][..., some],
        tuple(step.read_bytes(sizes[i]) for i in some),
        tuple(step.is_narrow(sizes[i]) for i in some),
        sizes[:first],
        needs[NEAR, :, :first],
    )


def all_far(step: StepBytes) -> Far:
    """All of what a step touches."""
    site = step.site
    return Far(site.src.h, site.dst.h, site.added.h if site.added_channels else 0, cache=True)


def _needs(
    step: StepBytes, flows: Flows, tiles: tuple[Extent, ...], every: tuple[Far, ...]
) -> Numbers:
    """What tiles of each size need in the chunk that needs the most, for each choice of far stores,
    with the cache near and far [choices, 2, tiles].
    """
    known: dict[tuple[Flags, bool], int] = {}
    starts, rows = list[int](), list[int]()
    for far in every:
        for some in (_NONE, flows if step.cache_bytes else _NONE):
            starts.append(len(rows))
            kinds = ((step.flags(far, *flow), far.cut) for flow in some)
            rows += [known.setdefault(kind, len(known)) for kind in kinds]
    flags, cut = zip(*known, strict=True)
    found = step.needs(tiles, flags, cut)[rows]
    return np.maximum.reduceat(found, starts).reshape(len(every), 2, len(tiles))


_NONE = ((False, False),)


@lru_cache(maxsize=1024)
def _thinned(sizes: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """The first, the last, and of those between them as many as differ by enough; and the last that
    has all frames, since fewer of them may need more.
    """
    found = [sizes[0]]
    for tile, smaller in pairwise(sizes[1:]):
        if tile.voxels <= _SHARE * found[-1].voxels or smaller.t < tile.t == sizes[0].t:
            found.append(tile)
    return (*found, sizes[-1]) if len(sizes) > 1 else sizes
