"""Which overlapping crops does blend mode run, and how do their results become one picture?

Blend mode is the reference's tiled encode and decode. Every crop goes through the whole network
for the whole clip, with caches and statistics of its own, and the results are faded into each
other:

1. `blend_geometry` cuts both sides of the picture in whole latent elements. Normalised order: tiles
   of one size, the last one shifted inwards. Reference order: a tile at every stride, the last ones
   as short as the picture leaves them.
2. `blend_tiles` checks the result's size, then has one crop after another computed, row by row.
3. Normalised order adds each tile to the result under weights whose sum is one at every element:
   ramps over what a tile really shares with its neighbours, divided beforehand by their total.
4. Reference order fades each tile into the finished tile above and then into the finished tile to
   its left. Where four tiles meet this is no product of two ramps, so nothing but that sequence
   gives diffusers' numbers. Only strips of finished tiles are kept.

How a crop is computed is the caller's business: chunks, layout and batch are not known here. The
result depends on the tiles, as the reference's does; `Tiling.EXACT` is the mode where it does not.
No torch is imported, so that planning may ask for the geometry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from ..errors import SettingsError
from ..settings import BlendOrder, Settings
from .region import Extent, Interval, Region

USUAL_TILE_PX = 256
"""Side of blended tiles where none was asked for."""

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Side:
    """The tiles along one side of the picture, in latent elements.

    Invariants: the first tile starts at 0; each next one starts later, leaves no gap and stops no
    earlier; together they are [0, size).
    """

    tiles: tuple[Interval, ...]

    def __post_init__(self) -> None:
        if not self.tiles or self.tiles[0].start != 0 or not self.tiles[0].size:
            raise ValueError(f"the first tile must start at 0 and hold something; got {self.tiles}")
        for earlier, later in pairwise(self.tiles):
            if not earlier.start < later.start <= earlier.stop <= later.stop:
                raise ValueError(f"{later} does not follow on {earlier}")

    @property
    def size(self) -> int:
        """Elements of the whole side."""
        return self.tiles[-1].stop

    def scaled(self, by: int) -> Side:
        """The same tiles where every element is `by` elements."""
        return Side(tuple(Interval(tile.start * by, tile.stop * by) for tile in self.tiles))

    def own(self, index: int) -> Interval:
        """What no later tile writes over in reference order: up to where the next one starts."""
        last = index + 1 == len(self.tiles)
        stop = self.size if last else self.tiles[index + 1].start
        return Interval(self.tiles[index].start, stop)

    def weights(self) -> tuple[tuple[float, ...], ...]:
        """For each tile the weight of each of its elements in normalised order.

        Invariant: at every element of the side the weights of the tiles that hold it sum to 1.
        """
        ramps = [self._ramps(index) for index in range(len(self.tiles))]
        totals = [0.0] * self.size
        for tile, ramp in zip(self.tiles, ramps, strict=True):
            for at, height in enumerate(ramp, tile.start):
                totals[at] += height
        return tuple(
            tuple(height / totals[at] for at, height in enumerate(ramp, tile.start))
            for tile, ramp in zip(self.tiles, ramps, strict=True)
        )

    def _ramps(self, index: int) -> list[float]:
        """Before normalising: 1 where a tile is alone, falling linearly over what it shares with
        either neighbour, (k + 1/2) / v at element k of v. Never 0, so that totals never are.
        """
        tile = self.tiles[index]
        before = self.tiles[index - 1].stop - tile.start if index else 0
        after = tile.stop - self.tiles[index + 1].start if index + 1 < len(self.tiles) else 0
        rising = [(k + 0.5) / before if k < before else 1.0 for k in range(tile.size)]
        falling = [(k + 0.5) / after if k < after else 1.0 for k in reversed(range(tile.size))]
        return [min(pair) for pair in zip(rising, falling, strict=True)]


@dataclass(frozen=True, slots=True)
class BlendTile:
    """One crop of the picture and where its result lies.

    row, column: its place among the tiles.
    source: what is read, in source elements, over all frames of the clip.
    target: rows and columns of the result that it covers, in result elements.
    """

    row: int
    column: int
    source: Region
    target: tuple[Interval, Interval]


@dataclass(frozen=True, slots=True)
class BlendGeometry:
    """All crops of one picture.

    frames: of the source; every crop holds all of them.
    source_sides, target_sides: the tiles along (height, width), in elements of what goes in and of
        what comes out. Invariant: both are the same tiles of latent elements, scaled.
    order: how the results are put together.
    """

    frames: int
    source_sides: tuple[Side, Side]
    target_sides: tuple[Side, Side]
    order: BlendOrder

    @property
    def count(self) -> int:
        """How many tiles there are."""
        rows, columns = self.source_sides
        return len(rows.tiles) * len(columns.tiles)

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the result."""
        rows, columns = self.target_sides
        return rows.size, columns.size

    @property
    def largest(self) -> Extent:
        """The largest crop, in source elements: what memory has to be planned for."""
        height, width = (max(tile.size for tile in side.tiles) for side in self.source_sides)
        return Extent(self.frames, height, width)

    def tiles(self) -> Iterator[BlendTile]:
        """The tiles in the order in which they are run: row by row, from left to right."""
        clip = Interval(0, self.frames)
        rows, columns = (
            tuple(enumerate(zip(source.tiles, target.tiles, strict=True)))
            for source, target in zip(self.source_sides, self.target_sides, strict=True)
        )
        for row, (source_h, target_h) in rows:
            for column, (source_w, target_w) in columns:
                region = Region(clip, source_h, source_w)
                yield BlendTile(row, column, region, (target_h, target_w))


def blend_geometry(source: Extent, settings: Settings, from_px: int, to_px: int) -> BlendGeometry:
    """The crops of a `source` whose elements are `from_px` pixels wide, for a result with elements
    of `to_px` pixels.

    tile_px and overlap_px count in whole latent elements, rounded down, but an overlap that
    was asked for is at least one of them. A picture no larger than a tile is one tile.
    Height and width of the source are whole latent elements.
    Raises `SettingsError` where an overlap is not smaller than its tile.
    """
    latent_px = max(from_px, to_px)
    to_source, to_target = latent_px // from_px, latent_px // to_px
    assert source.h % to_source == source.w % to_source == 0, f"{source} was not fitted"
    sizes = (source.h // to_source, source.w // to_source)
    order = cast("BlendOrder", settings.blend_order)
    rows, columns = _sides(sizes, _cuts(settings, latent_px), order)
    return BlendGeometry(
        source.t,
        (rows.scaled(to_source), columns.scaled(to_source)),
        (rows.scaled(to_target), columns.scaled(to_target)),
        order,
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """How one side is to be cut, in latent elements. Invariant: 0 <= overlap < tile."""

    tile: int
    overlap: int


def _cuts(settings: Settings, latent_px: int) -> tuple[_Cut, _Cut]:
    """The cut of (height, width)."""
    tile_h, tile_w = cast("tuple[int, int]", settings.tile_px or (USUAL_TILE_PX, USUAL_TILE_PX))
    overlap_h, overlap_w = cast("tuple[int, int]", settings.overlap_px)
    height = _cut("height", tile_h, overlap_h, latent_px)
    return height, _cut("width", tile_w, overlap_w, latent_px)


def _cut(name: str, tile_px: int, overlap_px: int, latent_px: int) -> _Cut:
    tile = max(tile_px // latent_px, 1)
    overlap = max(overlap_px // latent_px, min(overlap_px, 1))
    if overlap >= tile:
        raise SettingsError(
            f"overlap_px must be smaller than tile_px in {name}, counted in latent elements of"
            f" {latent_px} px, or no tile would get any further than the one before it; got"
            f" overlap_px {overlap_px} ({overlap} elements) and tile_px {tile_px} ({tile}). Use an"
            f" overlap of at most {(tile - 1) * latent_px} px, or tiles of at least"
            f" {(overlap + 1) * latent_px} px."
        )
    return _Cut(tile, overlap)


def _sides(sizes: tuple[int, int], cuts: tuple[_Cut, _Cut], order: BlendOrder) -> tuple[Side, Side]:
    if all(size <= cut.tile for size, cut in zip(sizes, cuts, strict=True)):
        whole_h, whole_w = (Side((Interval(0, size),)) for size in sizes)
        return whole_h, whole_w
    side = _strided if order is BlendOrder.REFERENCE else _shifted
    return side(sizes[0], cuts[0]), side(sizes[1], cuts[1])


def _strided(size: int, cut: _Cut) -> Side:
    """A tile at every stride, as autoencoder_kl_cogvideox.py (diffusers 0.42.1) `tiled_encode` and
    `tiled_decode` have it: a second, short one even where the first has reached the end.
    """
    starts = range(0, size, cut.tile - cut.overlap)
    return Side(tuple(Interval(start, min(start + cut.tile, size)) for start in starts))


def _shifted(size: int, cut: _Cut) -> Side:
    """Tiles of one size, as few as will do, the last one shifted inwards."""
    last = max(size - cut.tile, 0)
    starts = [*range(0, last, cut.tile - cut.overlap), last]
    return Side(tuple(Interval(start, min(start + cut.tile, size)) for start in starts))


def blend_tiles(geometry: BlendGeometry, run: Callable[[Region], Tensor], result: Tensor) -> None:
    """Fill `result` [b, c', t', h', w'] from crops of the source.

    run: computes one crop, all its frames finished: [b, c', t', h', w'] of that crop, of any dtype
        and device; it is called once for each tile, row by row, and what it returns is only read.
    result: of the caller's dtype and device. What is added up is float32 at least: in a narrower
        result's place a float32 copy of it is held until the end.
    """
    size = tuple(result.shape[-2:])
    assert size == geometry.target_size, f"result of {size} instead of {geometry.target_size}"
    wide = result if result.element_size() >= 4 else result.float()
    put_together = _fade if geometry.order is BlendOrder.REFERENCE else _accumulate
    put_together(geometry, run, wide)
    if wide is not result:
        result.copy_(wide)


def _computed(run: Callable[[Region], Tensor], tile: BlendTile, result: Tensor) -> Tensor:
    """The finished crop, on the result's device and in its dtype."""
    part = run(tile.source)
    expected = (*result.shape[:3], *(interval.size for interval in tile.target))
    assert tuple(part.shape) == expected, f"tile of {tuple(part.shape)} instead of {expected}"
    return part.to(result)


def _accumulate(geometry: BlendGeometry, run: Callable[[Region], Tensor], result: Tensor) -> None:
    """Normalised order: result = the sum of weight * tile."""
    rows, columns = (
        [result.new_tensor(weights) for weights in side.weights()] for side in geometry.target_sides
    )
    result.zero_()
    for tile in geometry.tiles():
        part = _computed(run, tile, result)
        weight = rows[tile.row][:, None] * columns[tile.column]  # [h', w']
        result[(..., *_slices(tile.target))].addcmul_(part, weight)


def _fade(geometry: BlendGeometry, run: Callable[[Region], Tensor], result: Tensor) -> None:
    """Reference order, as `blend_v` and `blend_h` (autoencoder_kl_cogvideox.py) are applied there:
    a neighbour is used as it was left by its own fades, not as it was computed.
    """
    rows, columns = geometry.target_sides
    above: dict[int, Tensor] = {}
    left = result[..., :0]
    for tile in geometry.tiles():
        part = _computed(run, tile, result).clone()
        if tile.row:
            _fade_in(part, above[tile.column], dim=-2)
        if tile.column:
            _fade_in(part, left, dim=-1)
        own = (rows.own(tile.row), columns.own(tile.column))
        result[(..., *_slices(own))] = part[..., : own[0].size, : own[1].size]
        above[tile.column] = part[..., own[0].size :, :].clone()
        left = part[..., own[1].size :].clone()


def _fade_in(part: Tensor, neighbour: Tensor, dim: int) -> None:
    """Write over the beginning of `part` along `dim`: from the neighbour's share of those elements
    at the first one towards `part` itself, k / v of it at element k of v.
    """
    shared = neighbour.shape[dim]
    ramp = part.new_tensor([k / shared for k in range(shared)])
    edge = part.narrow(dim, 0, shared)
    edge.copy_(neighbour.lerp(edge, ramp if dim == -1 else ramp[:, None]))


def _slices(box: tuple[Interval, Interval]) -> tuple[slice, slice]:
    return slice(box[0].start, box[0].stop), slice(box[1].start, box[1].stop)


def sound_overlap_px(tile_px: int, factor: float, latent_px: int = 8) -> int | None:
    """The overlap_px that is diffusers' overlap `factor` at this tile size; None where diffusers'
    own geometry is unsound there.

    It derives strides and fades twice, in pixels and in latent elements, rounding each down
    (autoencoder_kl_cogvideox.py, `tiled_encode` and `tiled_decode`). That is sound where the tile
    is whole latent elements and the stride of what is read, in encode and in decode, is what
    remains of a tile once its fade is cut off. Elsewhere tiles land beside their places and results
    have the wrong size. Even a factor whose product is whole may be unsound, by the rounding of
    1 - factor: 5/12 of 96 px is.
    """
    tile = tile_px // latent_px
    encode_stride, encode_fade = int(tile_px * (1 - factor)), int(tile * factor)
    decode_stride, decode_fade = int(tile * (1 - factor)), int(tile_px * factor)
    sound = (
        tile_px % latent_px == 0
        and 0 < encode_stride <= tile_px
        and encode_stride == (tile - encode_fade) * latent_px
        and decode_stride * latent_px == tile_px - decode_fade
    )
    return decode_fade if sound else None
