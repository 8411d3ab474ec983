"""When can each frame of a clip be made, where convolutions look ahead, and what is kept for it?

A frame that looks ahead waits for the next one, so that each such convolution is a frame later than
what it reads, and no run of frames goes through the whole network together. So the work on a clip
is cut into bands:

1. In each band a run of the source's frames comes, and every step makes what it then can: all for
   which it has what it sees. After the source's last frame time goes on, as though more of them
   came, until the last result is made. So no step makes more in a band than a run of frames gives.
2. A store holds what is made in a band, and of the frames before that those which some reader has
   still to see, for its own results or to add to them.

Frames and cells are those of the whole clip, for whose geometry a `Chunk` of all of it stands.
Whole numbers only; how a band is run is the executor's business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from ..geometry.grid import Band, Chunk
from ..geometry.region import Extent, Interval, Region
from ..settings import Layout
from .parts import unfolded
from .steps import SOURCE, Program, Step

_ONE = Interval(0, 1)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who reads a store, for the step that writes another one.

    needs: its first frame that is needed for a cell and all later ones, by that cell.
    """

    store: int
    dst: int
    needs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Clip:
    """A clip on its way through a program.

    whole: as one chunk. totals: frames of every store. cells: by store, those of the step that
    writes it. readers: of all stores.
    """

    whole: Chunk
    totals: tuple[int, ...]
    cells: dict[int, int]
    readers: tuple[_Reader, ...]


def bands_of(program: Program, frames: int, run: int) -> tuple[Chunk, ...]:
    """The work on a clip of `frames` source frames, of which 1 + run come in the first band and run
    in each later one; all of it in one band where they are enough.
    """
    clip = _clip_of(program, frames)
    totals, cells = clip.totals, clip.cells
    if 1 + run >= frames:
        return (_all(clip),)
    made, done, found = [0] * len(totals), dict.fromkeys(cells, 0), list[Chunk]()
    while made[program.sink] < totals[program.sink]:
        come = 1 + run * (len(found) + 1)
        reached, ready = _reached(program, come)
        now = [min(*pair) for pair in zip(reached, totals, strict=True)]
        through = {store: min(ready[store], cells[store]) for store in cells}
        starts = _starts(clip, done, made)
        starts[SOURCE] = min(starts[SOURCE], now[SOURCE] - 1)  # a source always gives something
        found.append(_band(program.sink, (starts, made, now), (done, through)))
        made, done = now, through
    return tuple(found)


def largest_band(bands: tuple[Chunk, ...]) -> Chunk:
    """One that stands for all `bands`: each of its steps makes as much as in the band where it
    makes most, and each of its stores holds as much.
    """
    parts = [chunk.band for chunk in bands if chunk.band]
    sizes = [[interval.size for interval in part.cells] for part in parts]
    held = [[interval.size for interval in part.held] for part in parts]
    most = Band(
        tuple(Interval(0, max(column)) for column in zip(*sizes, strict=True)),
        tuple(Interval(0, max(column)) for column in zip(*held, strict=True)),
        tuple(max(column) for column in zip(*(part.kept for part in parts), strict=True)),
    )
    target = max((chunk.target for chunk in bands), key=lambda one: one.size)
    return Chunk(most.held[SOURCE], target, True, Layout.ALIGNED, most, share=bands[0].share)


@lru_cache(maxsize=8)
def _clip_of(program: Program, frames: int) -> _Clip:
    """What there is to know of a clip of so many source frames, however it is cut."""
    source = Interval(0, frames)
    chunk = Chunk(source, source, True, Layout.ALIGNED)
    extents = program.extents(Extent(frames, 1, 1), chunk)
    cells = {s.dst: s.cell_extent(extents[s.src], chunk).t for s in program.steps}
    whole = replace(chunk, target=Interval(0, extents[program.sink].t))
    totals = tuple(extent.t for extent in extents)
    return _Clip(whole, totals, cells, _readers(program, totals, cells))


def _all(clip: _Clip) -> Chunk:
    """The clip as one band."""
    totals = clip.totals
    made = tuple(Interval(0, clip.cells.get(store, 0)) for store in range(len(totals)))
    held = tuple(Interval(0, total) for total in totals)
    return replace(clip.whole, band=Band(made, held, (0,) * len(totals)))


def _reached(program: Program, come: int) -> tuple[list[int], dict[int, int]]:
    """Frames of every store that could be there, were the clip without end, once `come` frames of
    its source are; and by store the cells of the step that writes it.
    """
    reached, ready = [0] * len(program.stores), dict[int, int]()
    reached[SOURCE] = come
    for step in program.steps:
        up, seen = step.frames_made, reached[step.src] - step.ahead
        count = max((seen - 1) // step.rate.down + 1, 0)
        if step.residual:
            count = min(count, (reached[step.residual.store] + up - 1) // up)
        ready[step.dst] = count
        reached[step.dst] = up * count - (up - 1) if count else 0
    return reached, ready


def _readers(
    program: Program, totals: tuple[int, ...], cells: dict[int, int]
) -> tuple[_Reader, ...]:
    found: list[_Reader] = []
    for step in program.steps:
        count, size = cells[step.dst], totals[step.src]
        seen = (max(_first_seen(step, cell), 0) for cell in range(count))
        found.append(_Reader(step.src, step.dst, (*seen, size)))
        if step.residual:
            added = (
                unfolded(Interval(i, i + 1), step.frames_made, True).start for i in range(count)
            )
            size = totals[step.residual.store]
            found.append(_Reader(step.residual.store, step.dst, (*added, size)))
    return tuple(found)


def _first_seen(step: Step, cell: int) -> int:
    return step.seen_region(Region(Interval(cell, cell + 1), _ONE, _ONE), True).t.start


def _starts(clip: _Clip, done: dict[int, int], made: list[int]) -> list[int]:
    """The first frame of every store that is still needed, once the cells `done` are made."""
    starts = list(made)
    for reader in clip.readers:
        need = reader.needs[min(done[reader.dst], clip.cells[reader.dst])]
        starts[reader.store] = min(starts[reader.store], need)
    return starts


def _band(
    sink: int,
    frames: tuple[list[int], list[int], list[int]],
    cells: tuple[dict[int, int], dict[int, int]],
) -> Chunk:
    """A band; frames: of each store where it starts, and how many were made before and are now.
    cells: the same of each step.
    """
    starts, made, now = frames
    done, through = cells
    held = tuple(Interval(*pair) for pair in zip(starts, now, strict=True))
    kept = tuple(before - start for before, start in zip(made, starts, strict=True))
    runs = tuple(Interval(done.get(store, 0), through.get(store, 0)) for store in range(len(held)))
    band = Band(runs, held, kept)
    return Chunk(held[SOURCE], Interval(made[sink], now[sink]), True, Layout.ALIGNED, band)
