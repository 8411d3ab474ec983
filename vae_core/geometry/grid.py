"""Where is a clip cut: into which chunks of time, and which tiles of space?

1. `encode_chunks` and `decode_chunks` cut the clip's own frames into chunks by the layout's rule.
2. `tiles` cuts one tensor into boxes no larger than asked for, near-equal in space, so that no
   sliver is left over there.
3. `Chunk.keeps_first` says whether a chunk's first frame stands alone when time is pooled or
   repeated.

Pure geometry: which frames, never how they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from ..settings import Layout
from .ratios import Ratios
from .region import Extent, Interval, Region
from .share import Share


@dataclass(frozen=True, slots=True)
class Band:
    """What of a whole clip is made and held together, where a network looks ahead of its outputs.

    All by store, in the frames and cells of the clip; see `program.bands`.
    cells: those that are made of the step that writes it. held: its frames that there are
    meanwhile. kept: how many of these the band before has left.
    """

    cells: tuple[Interval, ...]
    held: tuple[Interval, ...]
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of frames pushed through the network together.

    source: its frames in the clip that goes in (sample frames for encode, latent frames for
        decode).
    target: its frames in the clip that comes out.
    first: whether it begins the clip, so that there is no causal cache and history is replicated.
    layout: whose rule says what the first frame is. leads: whether a clip's first frame is no
        other than those after it, whatever the layout.
    band: where it is no chunk, but a part of the work on the whole clip; None for a chunk.
    share: what of it one of several ranks does; None where nobody else has a part in it.
    """

    source: Interval
    target: Interval
    first: bool
    layout: Layout
    band: Band | None = None
    leads: bool = False
    share: Share | None = None

    def origin(self, store: int) -> int:
        """The frame, of those that the geometry of steps speaks of, with which a store begins."""
        return self.band.held[store].start if self.band else 0

    def held(self, store: int, extent: Extent) -> Extent:
        """The extent of what there is of a store, of which the chunk or the clip has `extent`."""
        frames = self.band.held[store].size if self.band else extent.t
        return Extent(frames, self.share.held[store].size if self.share else extent.h, extent.w)

    def all_held(self, extents: tuple[Extent, ...]) -> tuple[Extent, ...]:
        """The same of every store."""
        if self.band is None and self.share is None:
            return extents
        return tuple(self.held(store, extent) for store, extent in enumerate(extents))

    def here(self, store: int, region: Region) -> Region:
        """Where `region` of a store lies in what there is of it."""
        found = region.later(-self.origin(store))
        return found.lower(-self.share.held[store].start) if self.share else found

    def rows(self, store: int, side: int, whole: int) -> Interval:
        """Those of `whole` rows of cells that are to be made, where each makes `side` rows of a
        store.
        """
        return self.share.cells(store, side) if self.share else Interval(0, whole)

    def makes(self, store: int) -> bool:
        """Whether anything of a store is to be made."""
        rows = self.share is None or self.share.own[store].size > 0
        return rows and (self.band is None or self.band.cells[store].size > 0)

    def keeps_first(self, frames: int) -> bool:
        """Whether the first of `frames` stands alone at a level of time.

        Never where it `leads`. Aligned: exactly in the chunk that begins the clip. Diffusers:
        whenever the count is odd.
        """
        if self.leads:
            return False
        return self.first if self.layout is Layout.ALIGNED else frames % 2 == 1

    @property
    def anywhere(self) -> Chunk:
        """One of the same kind: but for bands, no geometry depends on where in a clip it lies."""
        return replace(self, source=_NOWHERE, target=_NOWHERE)


_NOWHERE = Interval(0, 0)


def pooled_frames(frames: int, keeps_first: bool) -> int:
    """Frames left when pairs are averaged; the first stays alone where `keeps_first`."""
    return 1 + (frames - 1) // 2 if keeps_first else frames // 2


def repeated_frames(frames: int, keeps_first: bool) -> int:
    """Frames there are when each is shown twice; the first only once where `keeps_first`."""
    return 2 * frames - 1 if keeps_first else 2 * frames


def _aligned_bounds(frames: int, chunk: int) -> list[Interval]:
    """First chunk 1 + chunk, then equal ones, the rest last."""
    starts = [0, *range(1 + chunk, frames, chunk)]
    return [Interval(a, b) for a, b in zip(starts, [*starts[1:], frames], strict=True)]


def _diffusers_bounds(frames: int, chunk: int) -> list[Interval]:
    """The remainder goes into the first chunk, as that project's `_encode` and `_decode` have
    it.
    """
    rest = frames % chunk
    count = max(frames // chunk, 1)
    stops = [min(chunk * (i + 1) + rest, frames) for i in range(count)]
    return [Interval(a, b) for a, b in zip([0, *stops[:-1]], stops, strict=True)]


def _bounds(frames: int, chunk: int, layout: Layout) -> list[Interval]:
    return (_aligned_bounds if layout is Layout.ALIGNED else _diffusers_bounds)(frames, chunk)


def _aligned(bounds: list[Interval], made: Callable[[int], int]) -> tuple[Chunk, ...]:
    """The chunks of frames `bounds`; made: frames of the result where so many have gone in."""
    stops = [0, *(made(source.stop) for source in bounds)]
    pairs = zip(bounds, pairwise(stops), strict=True)
    return tuple(
        Chunk(source, Interval(*target), source.start == 0, Layout.ALIGNED)
        for source, target in pairs
    )


Level = Callable[[int, bool], int]
"""Frames after one level of time, from the frames before it and whether the first of them stands
alone.
"""


def _by_parity(bounds: list[Interval], level: Level) -> tuple[Chunk, ...]:
    """The chunks of frames `bounds` in diffusers' layout, where a chunk's parity decides at each of
    two levels of time.
    """
    chunks: list[Chunk] = []
    for source in bounds:
        position, frames = chunks[-1].target.stop if chunks else 0, source.size
        for _ in range(2):
            frames = level(frames, frames % 2 == 1)
        target = Interval(position, position + frames)
        chunks.append(Chunk(source, target, source.start == 0, Layout.DIFFUSERS))
    return tuple(chunks)


def encode_chunks(
    frames: int, chunk_frames: int, layout: Layout, ratios: Ratios
) -> tuple[Chunk, ...]:
    """Chunks of `frames` sample frames; in the aligned layout a count that `ratios` allow."""
    bounds = _bounds(frames, chunk_frames, layout)
    if layout is Layout.ALIGNED:
        return _aligned(bounds, ratios.latent_frames)
    return _by_parity(bounds, pooled_frames)


def decode_chunks(
    frames: int, chunk_frames: int, layout: Layout, ratios: Ratios
) -> tuple[Chunk, ...]:
    """Chunks of `frames` latent frames, so many as make `chunk_frames` sample frames each."""
    bounds = _bounds(frames, max(chunk_frames // ratios.frames, 1), layout)
    if layout is Layout.ALIGNED:
        return _aligned(bounds, ratios.sample_frames)
    return _by_parity(bounds, repeated_frames)


def pieces(size: int, largest: int) -> Iterator[Interval]:
    """[0, size) in the fewest near-equal intervals of at most `largest`."""
    count = -(-size // largest)
    for index in range(count):
        yield Interval(size * index // count, size * (index + 1) // count)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring elements that show whole or partial cells of a coarser grid, each `repeat`
    times.

    Invariant: elements.size == cells.size * repeat.
    """

    cells: Interval
    elements: Interval
    repeat: int


def cell_runs(elements: Interval, ratio: int, keeps_first: bool) -> Iterator[Run]:
    """The cells that `elements` show when each cell lasts for `ratio` elements (the first for one,
    if it is kept).

    At most three runs: the end of a cell, whole cells, and the beginning of one.
    """
    offset = (
        ratio - 1 if keeps_first else 0
    )  # as though the first cell had lasted as long as the others
    at, stop = elements.start + offset, elements.stop + offset
    while at < stop:
        cell = at // ratio
        whole = (stop - at) // ratio if at % ratio == 0 else 0
        end = at + whole * ratio if whole else min((cell + 1) * ratio, stop)
        cells = Interval(cell, cell + max(whole, 1))
        yield Run(cells, Interval(at - offset, end - offset), (end - at) // cells.size)
        at = end


def cells_of(elements: Interval, ratio: int, keeps_first: bool) -> Interval:
    """The cells of a coarser grid that `elements` show, see `cell_runs`."""
    offset = ratio - 1 if keeps_first else 0
    return Interval((elements.start + offset) // ratio, -(-(elements.stop + offset) // ratio))


def time_pieces(size: int, largest: int) -> Iterator[Interval]:
    """[0, size) in intervals of `largest`, the rest last: one memory for every length."""
    for start in range(0, size, largest):
        yield Interval(start, min(start + largest, size))


def longest_piece(size: int, largest: int) -> int:
    """The length of the longest of `pieces`."""
    return -(-size // -(-size // largest))


def largest_of(extent: Extent, largest: Extent) -> Extent:
    """The size of the largest of `tiles`, which need not be as large as it may be."""
    h, w = longest_piece(extent.h, largest.h), longest_piece(extent.w, largest.w)
    return Extent(min(extent.t, largest.t), h, w)


def count_tiles(extent: Extent, largest: Extent) -> int:
    """How many tiles `tiles` yields."""
    return -(-extent.t // largest.t) * -(-extent.h // largest.h) * -(-extent.w // largest.w)


def tiles(extent: Extent, largest: Extent) -> Iterator[Region]:
    """The tiles of a tensor of `extent`, each at most `largest`: time outermost, then rows, then
    columns.
    """
    for t in time_pieces(extent.t, largest.t):
        for h in pieces(extent.h, largest.h):
            for w in pieces(extent.w, largest.w):
                yield Region(t, h, w)
