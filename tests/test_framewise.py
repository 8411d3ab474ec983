"""Are the statistics of every frame those of all of its voxels, however tiles cut it up?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.geometry.region import Interval
from vae_core.planning.sizes import MOST_PARTS
from vae_core.running import kernels
from vae_core.running.framewise import Framewise, measured_by_frame, moments_of
from vae_core.running.statistics import measured

FRAMES, ROWS, COLUMNS, CHANNELS, GROUPS = 7, 6, 10, 8, 4


def store(batch: int = 1) -> torch.Tensor:
    """[b, c, t, h, w] whose frames differ by much more than what lies in each of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, CHANNELS, FRAMES, ROWS, COLUMNS, generator=generator)
    return x + 100.0 * torch.arange(FRAMES).view(1, 1, -1, 1, 1)


def check(found: Framewise, x: torch.Tensor) -> None:
    """`found` is what each frame by itself gives."""
    moments = moments_of(found, GROUPS)
    groups = x.double().unflatten(1, (GROUPS, -1)).movedim(3, 1).flatten(3)  # [b, t, groups, ...]
    assert moments.mean.shape == (x.shape[0], FRAMES, GROUPS)
    torch.testing.assert_close(moments.mean.double(), groups.mean(3), rtol=1e-6, atol=1e-5)
    wanted = groups.var(3, correction=0)
    torch.testing.assert_close(moments.variance.double(), wanted, rtol=1e-4, atol=1e-4)


def by_parts(x: torch.Tensor, frames: range) -> Framewise:
    """What an accelerator gathers."""
    clips = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)
    return Framewise({frames: measured(clips, None)})


def by_moments(x: torch.Tensor, frames: range) -> Framewise:
    """What a processor gathers."""
    return measured_by_frame(x, frames, GROUPS)


WAYS = pytest.mark.parametrize("way", [by_moments, by_parts])


@WAYS
@pytest.mark.parametrize("batch", [1, 3])
@given(
    cuts=st.tuples(*(st.sets(st.integers(1, n - 1)) for n in (FRAMES, ROWS, COLUMNS))),
    seed=st.integers(0, 99),
)
def test_tiles_in_any_order_give_the_statistics_of_frames(way, batch: int, cuts, seed: int) -> None:
    x = store(batch)
    sides = [
        list(zip([0, *sorted(cut)], [*sorted(cut), n], strict=True))
        for cut, n in zip(cuts, x.shape[2:], strict=True)
    ]
    tiles = [(t, h, w) for t in sides[0] for h in sides[1] for w in sides[2]]
    order = torch.randperm(len(tiles), generator=torch.Generator().manual_seed(seed))
    found = Framewise({})
    for index in order.tolist():
        t, h, w = (slice(*side) for side in tiles[index])
        found = found.merge(way(x[:, :, t, h, w], range(FRAMES)[t]))
    check(found, x)


@WAYS
def test_frames_that_phases_make_by_turns_are_put_in_order(way) -> None:
    x, found = store(), Framewise({})
    for first in range(3):
        for rows in (slice(0, 3), slice(3, 6)):
            part = x[:, :, first::3, rows]
            found = found.merge(way(part, range(first, FRAMES, 3)))
    check(found, x)


@WAYS
def test_a_tile_that_was_run_in_smaller_pieces_counts_as_much(way) -> None:
    """One half of the picture in one piece, the other frame by frame."""
    x = store()
    found = way(x[..., :5], range(FRAMES))
    for frame in range(FRAMES):
        found = found.merge(way(x[:, :, frame : frame + 1, :, 5:], range(frame, frame + 1)))
    check(found, x)


def test_no_more_parts_are_kept_than_are_counted() -> None:
    x, found = store(), Framewise({})
    for column in range(COLUMNS):
        for row in range(ROWS):
            found = found.merge(
                by_parts(x[:, :, :, row : row + 1, column : column + 1], range(FRAMES))
            )
            (parts,) = found.found.values()
            assert len(parts.counts) <= MOST_PARTS
    check(found, x)


def test_a_norm_of_frames_is_that_of_torch() -> None:
    x = store(2)
    weight, bias = torch.linspace(0.5, 2.0, CHANNELS), torch.linspace(-1.0, 1.0, CHANNELS)
    moments = moments_of(by_moments(x, range(FRAMES)), GROUPS)
    norm = kernels.frame_affine(moments, 1e-5, weight, bias)
    pictures = x.transpose(1, 2).flatten(0, 1)
    wanted = torch.nn.functional.group_norm(pictures, GROUPS, weight, bias, 1e-5)
    for start, stop in ((0, FRAMES), (2, 3), (3, 6)):
        part, out = x[:, :, start:stop], torch.empty_like(x[:, :, start:stop])
        kernels.normalise(part, norm.of(Interval(start, stop)), out)
        own = wanted.unflatten(0, (2, FRAMES)).transpose(1, 2)[:, :, start:stop]
        torch.testing.assert_close(out, own, rtol=1e-4, atol=1e-3)
