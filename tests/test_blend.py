"""Does blend mode put the right crops into the right places, and equal diffusers' tiled result
where diffusers' own geometry is sound?
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from contract import assert_close
from diffusers import AutoencoderKLCogVideoX
from hypothesis import assume, example, given
from hypothesis import strategies as st
from networks import random_latents, random_module, random_video

from vae_core import Extent, Settings, SettingsError, from_module
from vae_core.geometry.blend import Side, blend_geometry, blend_tiles, sound_overlap_px
from vae_core.geometry.region import Interval

ENCODE, DECODE = (1, 8), (8, 1)
"""(from_px, to_px) of either program."""

BOTH, NAMES = (ENCODE, DECODE), ("encode", "decode")

ORDERS = ("normalised", "reference")


@dataclass(frozen=True)
class Case:
    """diffusers' own words for a tiling: (height, width) each, of the picture in px."""

    tile: tuple[int, int]
    factor: tuple[float, float]
    picture: tuple[int, int]
    frames: int = 5

    @property
    def settings(self) -> Settings:
        overlap = tuple(map(sound_overlap_px, self.tile, self.factor))
        order = {"blend_order": "reference", "layout": "diffusers"}
        return Settings(tiling="blend", tile_px=self.tile, overlap_px=overlap, **order)


SOUND = (
    Case((48, 80), (1 / 6, 1 / 5), (96, 160), frames=9),  # its defaults, about 1/5 of their size
    Case((64, 64), (1 / 4, 1 / 4), (120, 136)),
    Case((48, 48), (1 / 2, 1 / 2), (96, 72)),  # every inner element lies in two tiles a side
    Case((48, 32), (1 / 3, 1 / 4), (72, 88), frames=17),
    Case((32, 40), (3 / 4, 2 / 5), (56, 64)),  # a tile meets the next but one as well
    Case((80, 64), (1 / 5, 1 / 4), (72, 120)),  # the tile is higher than the picture: slivers
    Case((96, 96), (1 / 6, 1 / 4), (88, 64)),  # it is larger both ways: diffusers does not tile
    Case((40, 40), (1 / 5, 1 / 5), (64, 104), frames=1),
)

PICTURE = (104, 120)

UNSOUND = {
    "100 px at 0.2": (100, 1 / 5, 20, (96, 16)),
    "90 px at 1/3": (90, 1 / 3, 30, (88, 24)),
    "64 px at 1/6": (64, 1 / 6, 10, (64, 8)),
}
"""diffusers' tile and factor; the overlap_px they are taken for; tile and overlap, in px, of the
nearest tiling that is sound there.
"""


class StandIn(torch.nn.Module):
    """A network that resamples by averages or repetition, and adds `mark` times the crop's mean so
    that tiles disagree. Encodes where `decodes` is false.
    """

    def __init__(self, decodes: bool, mark: float) -> None:
        super().__init__()
        self.decodes, self.mark = decodes, mark

    def forward(self, x: torch.Tensor, conv_cache: None = None) -> tuple[torch.Tensor, None]:
        mark = self.mark * x.mean()
        if self.decodes:
            return x.repeat_interleave(8, 3).repeat_interleave(8, 4) + mark, None
        return F.avg_pool3d(x, (1, 8, 8)) + mark, None


@cache
def stand_in_vae(mark: float) -> AutoencoderKLCogVideoX:
    """diffusers' class, its tiling around networks of no cost."""
    module = random_module()
    module.encoder, module.decoder = StandIn(False, mark), StandIn(True, mark)
    return module


def diffusers_tiled(module, source: torch.Tensor, case: Case, way: tuple[int, int]):
    """What diffusers' own tiling gives."""
    module.enable_tiling(*case.tile, *case.factor)
    return module._encode(source) if way == ENCODE else module._decode(source).sample


def blended(run, source: torch.Tensor, settings: Settings, way: tuple[int, int], like):
    """What ours gives; run: a crop of the source -> its result. like: the whole result's shape."""
    geometry = blend_geometry(Extent(*source.shape[2:]), settings, *way)
    result = torch.full_like(like, torch.nan)
    blend_tiles(geometry, lambda crop: run(source[(..., *crop.slices)]), result)
    return result


def network(vae, settings: Settings, way: tuple[int, int]):
    """The engine on one crop: the whole network, untiled, for the whole clip."""
    off = replace(settings, tiling="off")
    if way == ENCODE:
        return lambda crop: vae.encode(crop, off).moments
    return lambda crop: vae.decode(crop, off)


def whole_source(case: Case, way: tuple[int, int]) -> torch.Tensor:
    """A video, or latents, of the case's picture."""
    height, width = case.picture
    if way == ENCODE:
        return random_video(case.frames, height, width)
    return random_latents((case.frames - 1) // 4 + 1, height // 8, width // 8)


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Peak signal to noise in dB, the peak being the expected range."""
    peak = expected.max() - expected.min()
    return float(20 * torch.log10(peak / (found - expected).square().mean().sqrt()))


@pytest.fixture(scope="module")
def module():
    return random_module()


@pytest.fixture(scope="module")
def vae(module):
    return from_module(module)


@pytest.mark.parametrize("way", BOTH, ids=NAMES)
@pytest.mark.parametrize("case", SOUND, ids=repr)
def test_reference_order_equals_diffusers_tiling_where_that_is_sound(
    module, vae, case, way
) -> None:
    source = whole_source(case, way)
    expected = diffusers_tiled(module, source, case, way)
    run = network(vae, case.settings, way)
    found = blended(run, source, case.settings, way, expected)
    assert_close(found, expected, 1e-4)


cells = st.integers(1, 12)
cuts = st.integers(2, 12).flatmap(lambda tile: st.tuples(st.just(tile), st.integers(0, tile - 1)))
ways = st.sampled_from(BOTH)


def source_of(cells: tuple[int, int], way: tuple[int, int], frames: int = 1) -> torch.Tensor:
    """A random source of a picture of that many latent elements."""
    height, width = (side * 8 // way[0] for side in cells)
    return random_latents(frames, height, width)


def settings_of(height: tuple[int, int], width: tuple[int, int], order: str) -> Settings:
    """Settings from (tile, overlap) in latent elements."""
    tile, overlap = ((height[k] * 8, width[k] * 8) for k in range(2))
    return Settings(tiling="blend", tile_px=tile, overlap_px=overlap, blend_order=order)


@given(height=cuts, width=cuts, picture=st.tuples(cells, cells), way=ways)
@example(height=(30, 5), width=(45, 9), picture=(60, 90), way=DECODE)
@example(height=(30, 5), width=(45, 9), picture=(60, 90), way=ENCODE)
def test_reference_order_equals_diffusers_for_every_sound_geometry(
    height, width, picture, way
) -> None:
    """The examples are its defaults: 480x720 in tiles of 240x360."""
    case = Case((height[0] * 8, width[0] * 8), (height[1] / height[0], width[1] / width[0]), (0, 0))
    assume(height[1] and width[1])  # enable_tiling takes 0 for "as before"
    assume(None not in map(sound_overlap_px, case.tile, case.factor))
    source = source_of(picture, way)
    expected = diffusers_tiled(stand_in_vae(1.0), source, case, way)
    run = StandIn(way == DECODE, 1.0)
    found = blended(lambda crop: run(crop)[0], source, case.settings, way, expected)
    assert_close(found, expected, 1e-6)


@given(tile=st.integers(16, 128), share=st.integers(1, 30), whole=st.integers(2, 31))
@example(tile=96, share=5, whole=12)  # whole elements, unsound by the rounding of 1 - 5/12
@example(tile=100, share=1, whole=5)
@example(tile=90, share=1, whole=3)
@example(tile=64, share=1, whole=6)
def test_an_overlap_is_called_sound_exactly_where_diffusers_puts_crops_back(
    tile: int, share: int, whole: int
) -> None:
    assume(share < whole)
    case = Case((tile, tile), (share / whole, share / whole), (0, 0))
    picture = (tile // 8 * 2 + 1, tile // 8 * 2 + 1)
    restored = []
    for way in BOTH:
        source = source_of(picture, way)
        expected = StandIn(way == DECODE, 0.0)(source)[0]
        try:
            found = diffusers_tiled(stand_in_vae(0.0), source, case, way)
        except (RuntimeError, ValueError, ZeroDivisionError):
            found = expected[..., :0]
        same_size = found.shape == expected.shape
        restored.append(same_size and torch.allclose(found, expected, atol=1e-5))
    assert all(restored) == (sound_overlap_px(tile, share / whole) is not None)


@given(
    height=cuts, width=cuts, picture=st.tuples(cells, cells), way=ways,
    order=st.sampled_from(ORDERS), dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_crops_of_one_tensor_blend_into_that_tensor(
    height, width, picture, way, order, dtype
) -> None:
    source = source_of(picture, way, frames=2).to(dtype)
    run = StandIn(way == DECODE, 0.0)
    expected, settings = run(source)[0], settings_of(height, width, order)
    found = blended(lambda crop: run(crop)[0], source, settings, way, expected)
    limit = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    assert float((found - expected).abs().max()) < limit * max(1.0, float(expected.abs().max()))


@given(height=cuts, width=cuts, picture=st.tuples(cells, cells))
def test_normalised_tiles_are_of_one_size_and_share_what_was_asked_for(
    height, width, picture
) -> None:
    chosen = settings_of(height, width, "normalised")
    geometry = blend_geometry(Extent(1, *picture), chosen, *DECODE)
    for side, size, (tile, overlap) in zip(
        geometry.source_sides, picture, (height, width), strict=True
    ):
        assert {piece.size for piece in side.tiles} == {min(tile, size)}
        shared = [a.stop - b.start for a, b in zip(side.tiles, side.tiles[1:], strict=False)]
        assert shared[:-1] == [overlap] * (len(shared) - 1)
        assert all(share >= overlap for share in shared)
        assert side.size == size


@given(cut=cuts, size=st.integers(1, 40), scale=st.sampled_from([1, 8]))
def test_weights_are_positive_sum_to_one_and_are_the_same_from_either_end(cut, size, scale) -> None:
    chosen = settings_of(cut, cut, "normalised")
    side = blend_geometry(Extent(1, size, size), chosen, *DECODE).source_sides[0].scaled(scale)
    totals = [0.0] * side.size
    for tile, weights in zip(side.tiles, side.weights(), strict=True):
        assert len(weights) == tile.size
        assert min(weights) > 0
        for at, weight in enumerate(weights, tile.start):
            totals[at] += weight
    assert totals == pytest.approx([1.0] * side.size, abs=1e-12)
    mirrored = Side(
        tuple(Interval(side.size - t.stop, side.size - t.start) for t in reversed(side.tiles))
    )
    for ahead, back in zip(side.weights(), reversed(mirrored.weights()), strict=True):
        assert ahead == pytest.approx(back[::-1], abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("tile", "overlap"), [(64, 16), (100, 20), (90, 30), (64, 10), (40, 0)])
def test_every_picture_from_8_to_200_px_comes_out_at_its_own_size(order, tile, overlap) -> None:
    chosen = Settings(tiling="blend", tile_px=tile, overlap_px=overlap, blend_order=order)
    for size in range(8, 201, 8):
        picture = (size, 208 - size)
        encode = blend_geometry(Extent(1, *picture), chosen, *ENCODE)
        decode = blend_geometry(Extent(1, size // 8, 26 - size // 8), chosen, *DECODE)
        assert encode.target_size == (size // 8, 26 - size // 8)
        assert decode.target_size == picture
        for geometry in (encode, decode):
            tiles = list(geometry.tiles())
            assert geometry.count == len(tiles)
            assert geometry.largest.voxels == max(tile.source.voxels for tile in tiles)


@pytest.fixture(scope="module")
def untiled(vae):
    """Source and whole result of the unsound cases' picture, for either way."""
    case = Case((0, 0), (0, 0), PICTURE)
    sources = {way: whole_source(case, way) for way in BOTH}
    off = Settings(layout="diffusers")
    return {way: (x, network(vae, off, way)(x)) for way, x in sources.items()}


def blend_of(vae, untiled, way, **chosen) -> torch.Tensor:
    source, whole = untiled[way]
    settings = Settings(tiling="blend", layout="diffusers", **chosen)
    found = blended(network(vae, settings, way), source, settings, way, whole)
    assert bool(found.isfinite().all())
    return found


def sound_case(tile: int, overlap: int) -> Case:
    assert sound_overlap_px(tile, overlap / tile) == overlap
    return Case((tile, tile), (overlap / tile, overlap / tile), PICTURE)


@pytest.mark.parametrize("way", BOTH, ids=NAMES)
@pytest.mark.parametrize("name", UNSOUND)
def test_an_unsound_tiling_is_run_as_the_nearest_sound_one(module, vae, untiled, name, way) -> None:
    """Reference order gives diffusers' own pixels there; normalised order is no further from the
    untiled result than those are, to 0.1 dB.
    """
    tile, factor, overlap, nearest = UNSOUND[name]
    assert sound_overlap_px(tile, factor) is None
    source, whole = untiled[way]
    expected = diffusers_tiled(module, source, sound_case(*nearest), way)
    chosen = {"tile_px": tile, "overlap_px": overlap}
    assert_close(blend_of(vae, untiled, way, **chosen, blend_order="reference"), expected, 1e-4)
    assert psnr(blend_of(vae, untiled, way, **chosen), whole) > psnr(expected, whole) - 0.1


@pytest.mark.parametrize("way", BOTH, ids=NAMES)
def test_without_overlap_every_tile_is_its_crop_alone(module, vae, untiled, way) -> None:
    """Seams and nothing else, bit for bit. Normalised order has a shifted last tile to blend, and
    is within 1.5 dB of diffusers at its smallest sound overlap.
    """
    source, whole = untiled[way]
    chosen = Settings(tiling="blend", tile_px=64, overlap_px=0, blend_order="reference")
    run = network(vae, replace(chosen, layout="diffusers"), way)
    found = blend_of(vae, untiled, way, tile_px=64, overlap_px=0, blend_order="reference")
    for tile in blend_geometry(Extent(*source.shape[2:]), chosen, *way).tiles():
        box = (..., *(slice(side.start, side.stop) for side in tile.target))
        assert torch.equal(found[box], run(source[(..., *tile.source.slices)]))
    expected = diffusers_tiled(module, source, sound_case(64, 8), way)
    normalised = blend_of(vae, untiled, way, tile_px=64, overlap_px=0)
    assert psnr(normalised, whole) > psnr(expected, whole) - 1.5


@pytest.mark.parametrize("tile", [None, 160, (144, 200)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("way", BOTH, ids=NAMES)
def test_a_picture_no_larger_than_a_tile_is_the_untiled_result_bit_for_bit(
    vae, untiled, tile, order, way
) -> None:
    found = blend_of(vae, untiled, way, tile_px=tile, blend_order=order)
    assert torch.equal(found, untiled[way][1])


@pytest.mark.parametrize("way", BOTH, ids=NAMES)
def test_a_batch_is_blended_as_its_clips_are(vae, way) -> None:
    settings = Settings(tiling="blend", tile_px=32, overlap_px=16)
    source = random_video(1, 40, 48, batch=2) if way == ENCODE else random_latents(1, 5, 6, batch=2)
    run = network(vae, settings, way)
    alone = [blended(run, clip, settings, way, run(clip)) for clip in source.split(1)]
    assert_close(blended(run, source, settings, way, run(source)), torch.cat(alone))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrow_result_is_the_float32_blend_rounded_once(order, dtype) -> None:
    chosen = Settings(tiling="blend", tile_px=48, overlap_px=24, blend_order=order)
    source = random_latents(2, 13, 9).to(dtype)
    run = StandIn(True, 1.0)
    geometry = blend_geometry(Extent(*source.shape[2:]), chosen, *DECODE)
    narrow = torch.empty(1, 4, 2, *geometry.target_size, dtype=dtype)
    wide = torch.empty_like(narrow, dtype=torch.float32)
    for result in (narrow, wide):
        blend_tiles(geometry, lambda crop: run(source[(..., *crop.slices)])[0], result)
    assert torch.equal(narrow, wide.to(dtype))


@pytest.mark.parametrize("order", ORDERS)
def test_each_crop_is_run_once_row_by_row_and_only_read(order) -> None:
    chosen = Settings(tiling="blend", tile_px=32, overlap_px=16, blend_order=order)
    geometry = blend_geometry(Extent(3, 7, 5), chosen, *DECODE)
    big = torch.rand(1, 2, 3, 56, 40)
    kept, seen = big.clone(), []

    def run(crop):
        assert crop.t == Interval(0, 3)
        seen.append((crop.h.start, crop.w.start))
        return big[..., crop.h.start * 8 : crop.h.stop * 8, crop.w.start * 8 : crop.w.stop * 8]

    blend_tiles(geometry, run, torch.empty_like(big))
    assert len(seen) == len(set(seen)) == geometry.count > 4
    assert seen == sorted(seen)
    assert torch.equal(big, kept)


@pytest.mark.parametrize(
    ("tile", "overlap", "remedy"),
    [(64, 64, "at most 56 px"), (70, 64, "at least 72 px"), (16, 200, "at most 8 px")],
)
def test_an_overlap_as_large_as_its_tile_is_refused_with_a_remedy(tile, overlap, remedy) -> None:
    chosen = Settings(tiling="blend", tile_px=(256, tile), overlap_px=(64, overlap))
    with pytest.raises(SettingsError, match=f"width.*overlap_px {overlap}.*{remedy}"):
        blend_geometry(Extent(1, 40, 40), chosen, *DECODE)


def test_a_result_of_another_size_stops_before_anything_is_run() -> None:
    geometry = blend_geometry(Extent(1, 8, 8), Settings(tile_px=32, overlap_px=8), *DECODE)
    with pytest.raises(AssertionError, match="instead of"):
        blend_tiles(geometry, pytest.fail, torch.empty(1, 3, 1, 64, 72))


@pytest.mark.parametrize("tiles", [(), ((1, 4),), ((0, 4), (5, 8)), ((0, 4), (0, 6)), ((0, 0),)])
def test_a_side_with_a_gap_is_refused(tiles) -> None:
    with pytest.raises(ValueError, match=r"first tile|follow"):
        Side(tuple(Interval(*tile) for tile in tiles))
