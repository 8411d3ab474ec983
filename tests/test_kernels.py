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
def test_taps_that_fall_on_one_element_are_added_with_one_rounding(dtype, row, column) -> None:
    """Two roundings a sum, each in bfloat16, made decoded pictures brighter than they are."""
    weight = torch.randn(8, 8, 1, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact = torch.zeros(8, 8, 1, 2, 2, dtype=torch.float64)
    for i in range(3):
        for j in range(3):  # output 2k + row sees the doubled rows 2k + row - 1 + i
            exact[..., (row + i + 1) // 2 - row, (column + j + 1) // 2 - column] += weight[
                ..., i, j
            ]
    if dtype == torch.float32:
        torch.testing.assert_close(squared(weight, row, column), exact.float())
    else:
        assert torch.equal(squared(weight, row, column), exact.to(dtype))
