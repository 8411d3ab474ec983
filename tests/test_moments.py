"""Are merged statistics those of all voxels together?"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vae_core.program.moments import Moments
from vae_core.running.kernels import affine, measure

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


def moments_of(values: list[float]) -> Moments:
    mean = sum(values) / len(values)
    return Moments(len(values), mean, sum((v - mean) ** 2 for v in values))


@given(numbers, numbers)
def test_merged_moments_are_those_of_the_whole(a: list[float], b: list[float]) -> None:
    found, expected = moments_of(a).merge(moments_of(b)), moments_of(a + b)
    assert found.count == expected.count
    assert found.mean == pytest.approx(expected.mean, abs=1e-9)
    assert found.m2 == pytest.approx(expected.m2, abs=1e-7)


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_measured_moments_normalise_as_group_norm_does(offset: float) -> None:
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 8, eps=1e-6).requires_grad_(False)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 8, 3, 6, 5) + offset
    parts = [measure(part, 4) for part in x.split((1, 4, 1), dim=3)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    found = affine(merged, norm.eps, norm.weight, norm.bias)
    expected = norm.double()(x.double()).float()
    assert torch.allclose(x * found.scale + found.shift, expected, atol=3e-7 * (50 + 4 * offset))
