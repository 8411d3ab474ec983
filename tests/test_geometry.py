"""Do intervals, grids and index maps cover everything once, whatever the sizes?"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae_core.geometry.grid import (
    cell_runs,
    cells_of,
    decode_chunks,
    encode_chunks,
    pieces,
    pooled_frames,
    repeated_frames,
    tiles,
)
from vae_core.geometry.ratios import Ratios
from vae_core.geometry.region import Extent, Halo, Interval
from vae_core.program.parts import Conv, TimeMap, unfolded
from vae_core.settings import Layout

sizes = st.integers(1, 300)


@given(size=sizes, largest=sizes)
def test_pieces_cover_a_side_once_and_none_is_a_sliver(size: int, largest: int) -> None:
    found = list(pieces(size, largest))
    assert [i for piece in found for i in range(piece.start, piece.stop)] == list(range(size))
    assert max(p.size for p in found) <= largest
    assert max(p.size for p in found) - min(p.size for p in found) <= 1


@given(st.tuples(*[st.integers(1, 12)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_tiles_cover_every_voxel_once(extent: tuple, largest: tuple) -> None:
    whole = Extent(*extent)
    covered = [
        (t, h, w)
        for tile in tiles(whole, Extent(*largest))
        for t in range(tile.t.start, tile.t.stop)
        for h in range(tile.h.start, tile.h.stop)
        for w in range(tile.w.start, tile.w.stop)
    ]
    assert len(covered) == len(set(covered)) == whole.voxels


@pytest.mark.parametrize("ratio", [4, 6, 8])
@pytest.mark.parametrize("chunk", range(8, 41, 8))
@pytest.mark.parametrize("n", range(1, 41))
def test_n_latent_frames_and_rn_minus_r_plus_1_sample_frames_for_every_chunk(
    n: int, chunk: int, ratio: int
) -> None:
    ratios, chunk = Ratios(8, ratio), chunk // ratio * ratio
    frames = ratio * (n - 1) + 1
    encode = encode_chunks(frames, chunk, Layout.ALIGNED, ratios)
    decode = decode_chunks(n, chunk, Layout.ALIGNED, ratios)
    for chunks in (encode, decode):
        for earlier, later in pairwise(chunks):
            assert earlier.source.stop == later.source.start
            assert earlier.target.stop == later.target.start
        assert [c.first for c in chunks] == [True] + [False] * (len(chunks) - 1)
    assert encode[-1].target.stop == decode[-1].source.stop == n
    assert encode[-1].source.stop == decode[-1].target.stop == frames


@given(frames=st.integers(1, 120), chunk=st.integers(1, 12))
def test_diffusers_chunks_put_the_remainder_first(frames: int, chunk: int) -> None:
    found = encode_chunks(frames, 4 * chunk, Layout.DIFFUSERS, Ratios(8, 4))
    assert found[-1].source.stop == frames
    assert all(c.source.size == 4 * chunk for c in found[1:])


@given(st.integers(1, 60), st.booleans())
def test_pooling_undoes_repeating(frames: int, keeps_first: bool) -> None:
    assert pooled_frames(repeated_frames(frames, keeps_first), keeps_first) == frames


@given(
    start=st.integers(0, 40), size=st.integers(1, 40), ratio=st.sampled_from([1, 2, 4, 8]),
    keeps_first=st.booleans(),
)  # fmt: skip
def test_cell_runs_show_each_element_its_cell(start, size, ratio, keeps_first) -> None:
    elements = Interval(start, start + size)
    runs = list(cell_runs(elements, ratio, keeps_first))
    assert len(runs) <= 3
    shown = [
        (run.elements.start + k, run.cells.start + k // run.repeat)
        for run in runs
        for k in range(run.elements.size)
    ]
    offset = ratio - 1 if keeps_first else 0
    assert shown == [(i, (i + offset) // ratio) for i in range(start, start + size)]
    cells = cells_of(elements, ratio, keeps_first)
    assert (cells.start, cells.stop) == (shown[0][1], shown[-1][1] + 1)


@pytest.mark.parametrize("keeps_first", [True, False])
@pytest.mark.parametrize("time_map", list(TimeMap))
@given(start=st.integers(0, 20), size=st.integers(1, 20))
def test_a_time_map_names_exactly_the_frames_it_uses(time_map, keeps_first, start, size) -> None:
    used = set()
    for seen in range(start, start + size):
        if time_map in (TimeMap.SAME, TimeMap.UNFOLD_PAIRS):
            used |= {seen}
        elif time_map is TimeMap.REPEAT_PAIRS:
            used |= {(seen + keeps_first) // 2}
        else:
            pair = {2 * seen - keeps_first, 2 * seen + 1 - keeps_first}
            used |= {0} if keeps_first and seen == 0 else pair
    found = time_map.source(Interval(start, start + size), keeps_first)
    assert used == set(range(found.start, found.stop))


@given(start=st.integers(0, 20), size=st.integers(1, 20), keeps_first=st.booleans())
def test_unfolded_frames_show_the_frames_they_came_from(start, size, keeps_first) -> None:
    made = unfolded(Interval(start, start + size), 2, keeps_first)
    shown = [(frame + keeps_first) // 2 for frame in range(made.start, made.stop)]
    alone = keeps_first and start == 0
    assert shown == sorted(2 * list(range(start, start + size)))[alone:]


@given(
    size=st.integers(3, 60), kernel=st.sampled_from([1, 3]), stride=st.sampled_from([1, 2]),
    start=st.integers(0, 5), length=st.integers(1, 9),
)  # fmt: skip
def test_a_convolution_reads_what_its_taps_touch(size, kernel, stride, start, length) -> None:
    pad = Halo(0, 1) if stride == 2 else Halo(kernel // 2, kernel // 2)
    conv = Conv("conv", 1, 1, 1, kernel, stride, pad)
    touched = {
        o * stride - pad.before + tap for o in range(start, start + length) for tap in range(kernel)
    }
    found = conv.reads(Interval(start, start + length))
    assert (found.start, found.stop) == (min(touched), max(touched) + 1)
    last = conv.reads(Interval(conv.size(size) - 1, conv.size(size)))
    assert last.stop <= size + pad.after < last.stop + stride


def test_an_interval_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="start <= stop"):
        Interval(3, 2)
    with pytest.raises(ValueError, match="does not lie within"):
        Interval(0, 4).within(Interval(1, 9))


@given(st.integers(-20, 20), st.integers(0, 30), st.integers(0, 25))
def test_clipping_keeps_what_lies_inside(start: int, length: int, size: int) -> None:
    inside = set(range(start, start + length)) & set(range(size))
    clipped = Interval(start, start + length).clip(size)
    assert set(range(clipped.start, clipped.stop)) == inside
