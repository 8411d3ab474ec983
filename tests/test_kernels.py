"""Are single kernels right where a library below them is not?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vae_core.running.phases import Phase, convolve


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("height", [3, 9, 17])
def test_a_strided_result_of_one_column_is_as_in_double_precision(
    dtype: torch.dtype, height: int
) -> None:
    """torch 2.13 on processors with AMX gives garbage here when asked directly in 16 bits."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, 3, height, 3, generator=generator).to(dtype)
    weight = (torch.randn(32, 32, 1, 3, 3, generator=generator) / 17.0).to(dtype)
    result = convolve(x, Phase(weight, None), strides=(1, 2, 2))
    exact = F.conv3d(x.double(), weight.double(), stride=(1, 2, 2))
    assert result.shape == exact.shape
    error = (result.double() - exact).abs().max() / exact.abs().max()
    assert error <= 8 * torch.finfo(dtype).eps
