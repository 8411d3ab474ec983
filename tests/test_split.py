"""Stores of which some rows are elsewhere, or not there at all: do they read like whole ones?"""

from __future__ import annotations

import pytest
import torch

from vae_core.running.split import Rolling, Split, copy_first_frame
from vae_core.running.transfers import PlainLanes, Transfers


def numbered(rows: int = 10) -> torch.Tensor:
    return torch.arange(2 * 3 * 4 * rows * 5, dtype=torch.float32).view(2, 3, 4, rows, 5)


def split(x: torch.Tensor, rows: int) -> Split:
    return Split(x[:, :, :, :rows].clone(), x[:, :, :, rows:].clone())


@pytest.mark.parametrize("rows", [1, 4, 9])
@pytest.mark.parametrize("part", [(0, 3), (2, 10), (4, 5), (0, 10), (8, 10)])
def test_what_is_taken_of_a_split_store_is_what_a_whole_one_has(rows, part) -> None:
    x = numbered()
    place = (..., slice(1, 3), slice(*part), slice(1, 4))
    transfers = Transfers(torch.device("cpu"), x.dtype, PlainLanes())
    taken = transfers.fetch(split(x, rows)[place]).take()
    assert torch.equal(taken, x[place])


@pytest.mark.parametrize(("one", "other"), [(3, 7), (5, 5), (8, 2)])
def test_a_first_frame_is_copied_between_stores_that_are_split_elsewhere(one, other) -> None:
    x = numbered()
    source, target = split(x, one), split(torch.zeros_like(x), other)
    copy_first_frame(source, target, 0, 10)
    whole = torch.cat(target.parts, 3)
    assert torch.equal(whole[:, :, :1], x[:, :, :1])
    assert not whole[:, :, 1:].any()


def test_a_window_keeps_what_it_has_in_common_with_the_next() -> None:
    x = numbered(12)
    window = Rolling(torch.empty(2, 3, 4, 5, 5))
    every = slice(None)
    for start, stop, new in ((0, 4, 0), (1, 6, 4), (3, 8, 6), (7, 12, 8)):
        window.roll(start, stop)
        rows = (..., every, slice(new, stop), every)
        window[rows].copy_(x[rows])
        there = (..., every, slice(start, stop), every)
        assert torch.equal(window[there], x[there])
