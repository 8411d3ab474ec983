"""Are single kernels right where a library below them is not?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vae_core.running.phases import Phase, convolve, squared


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("height", "side"), [(3, 3), (9, 3), (17, 3), (9, 2), (9, 6), (17, 6)])
def test_a_strided_result_of_one_column_is_as_in_double_precision(
    dtype: torch.dtype, height: int, side: int
) -> None:
    """torch 2.13 on processors with AMX gives garbage here when asked directly in 16 bits."""
    generator = torch.Generator().manual_seed(0)
    channels = 288 // side**2  # as many products in a sum, and so as much rounding, for all sides
    x = torch.randn(1, channels, 3, height, side, generator=generator).to(dtype)
    weight = (torch.randn(32, channels, 1, side, side, generator=generator) / 17.0).to(dtype)
    result = convolve(x, Phase(weight, None), strides=(1, 2, 2))
    exact = F.conv3d(x.double(), weight.double(), stride=(1, 2, 2))
    assert result.shape == exact.shape
    error = (result.double() - exact).abs().max() / exact.abs().max()
    assert error <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("column", [0, 1])
def test_taps_that_fall_on_one_element_together_lose_one_rounding(dtype, row, column) -> None:
    """Of each by itself there would be four; and two a sum, each in bfloat16, made decoded pictures
    brighter than they are.
    """
    weight = torch.randn(8, 8, 1, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = torch.zeros(8, 8, 1, 2, 2, dtype=torch.float64)
    for i in range(3):
        for j in range(3):  # output 2k + row sees the doubled rows 2k + row - 1 + i
            exact[..., (row + i + 1) // 2 - row, (column + j + 1) // 2 - column] += weight[
                ..., i, j
            ]
    made, eps = squared(weight, (1,), (row, column), dtype), torch.finfo(dtype).eps
    assert made.dtype == dtype
    apart, size = made.double() - exact, exact.abs().amax((3, 4))
    assert (apart.abs().amax((3, 4)) <= 2 * eps * size).all()
    if dtype != torch.float32:  # the sums themselves are in float32
        lone = made[..., row, column].abs()  # of the tap that nothing is added to
        assert (apart.sum((3, 4)).abs() <= eps / 2 * lone + 1e-6).all()
        apart_each = exact.to(dtype).double() - exact
        assert apart.sum((3, 4)).square().mean() < 0.5 * apart_each.sum((3, 4)).square().mean()


@pytest.mark.parametrize("sums", [(2, 1), (1, 2)])
def test_what_rounding_takes_is_handed_on_in_time_too(sums) -> None:
    weight = torch.randn(8, 8, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    kept = weight.clone()
    made = squared(weight, sums, (0, 1), torch.bfloat16).double()
    assert torch.equal(weight, kept)
    apart = made.sum((2, 3, 4)) - weight.double().sum((2, 3, 4))
    lone = made[:, :, sums.index(1), 0, 1].abs()
    assert (apart.abs() <= torch.finfo(torch.bfloat16).eps / 2 * lone + 1e-6).all()
