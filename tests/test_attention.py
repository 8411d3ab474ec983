"""Is attention over blocks of keys as exact as over all of them, in the memory counted?"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from device_bytes import DeviceBytes

from vae_core.geometry.region import Extent
from vae_core.program.parts import Attend
from vae_core.running.attention import attend

CHANNELS, H, W = 48, 12, 20


def stored(dtype: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """Queries, keys and values of a frame, [2, 3c, 1, h, w]; queries and keys times `scale`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3 * CHANNELS, 1, H, W, generator=generator)
    x[:, : 2 * CHANNELS] *= scale
    return x.to(dtype)


def blocked(x: torch.Tensor, rows: int, wide: torch.dtype) -> torch.Tensor:
    """What `attend` makes of all queries, with keys in blocks of `rows`: [b, h * w, c]."""
    queries, keys = x[:, :CHANNELS], x[:, CHANNELS:]
    return attend(queries, iter(keys.split(rows, dim=3)), wide)


def at_once(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """torch's own attention in `dtype`."""
    q, k, v = x[:, :, 0].flatten(2).transpose(1, 2).to(dtype)[:, None].chunk(3, dim=-1)
    return F.scaled_dot_product_attention(q, k, v)[:, 0]


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The root of the mean squared error."""
    return float((found.double() - exact).square().mean().sqrt())


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("rows", [1, 5, H])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_is_no_larger_than_that_of_torchs_own_attention(dtype, rows, scale) -> None:
    x = stored(dtype, scale)
    exact = at_once(x.double(), torch.float64)
    found = blocked(x, rows, torch.float32).to(dtype)
    assert error(found, exact) <= 1.05 * error(at_once(x, dtype), exact)


@pytest.mark.parametrize("rows", [1, 7, H])
def test_blocks_make_no_difference_in_float64(rows) -> None:
    x = stored(torch.float64)
    assert (blocked(x, rows, torch.float64) - at_once(x, torch.float64)).abs().max() < 1e-13


@pytest.mark.parametrize("rows", [1, 4, H])
def test_logits_beyond_the_range_of_exp_leave_no_hole(rows) -> None:
    """Logits of several thousands, of which exp knows none; each query finds its largest one."""
    x = stored(torch.float32, 40.0)
    found = blocked(x, rows, torch.float32)
    assert found.isfinite().all()
    exact = at_once(x.double(), torch.float64)
    assert (found - exact).abs().max() < 1e-2 * exact.abs().max()
    torch.testing.assert_close(blocked(x, rows, torch.float32), blocked(x, H, torch.float32))


def test_keys_that_grow_from_block_to_block_are_weighed_alike() -> None:
    """Each block raises the maximum, so that all that was summed before is scaled down."""
    x = stored(torch.float64)
    x[:, CHANNELS : 2 * CHANNELS] *= torch.arange(1.0, H + 1).view(1, 1, 1, H, 1).double()
    for ordered in (x, torch.cat([x[:, :CHANNELS], x[:, CHANNELS:].flip(3)], 1)):
        exact = at_once(ordered, torch.float64)
        assert (blocked(ordered, 1, torch.float64) - exact).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tile", [(H, W), (3, W), (2, 5)])
def test_no_more_is_allocated_than_a_block_and_the_running_sums(dtype, tile) -> None:
    x, (h, w) = stored(dtype), tile
    rows = Attend("", CHANNELS).key_rows(Extent(1, h, w), Extent(1, H, W))
    n, keys = h * w, rows * W
    with DeviceBytes("cpu") as counter:
        attend(x[:, :CHANNELS, :, :h, :w], iter(x[:, CHANNELS:].split(rows, dim=3)), torch.float32)
    counted = 2 * 4 * (n * (3 * CHANNELS + 4) + keys * 2 * CHANNELS + n * keys)
    assert counter.peak_bytes <= counted
    assert counted <= 1.3 * counter.peak_bytes, "and not much less"


def test_queries_meet_all_frames_of_a_clip_of_4k_as_exactly_as_torch_does() -> None:
    """33 frames of 90x160 tokens, a block of rows after the other; some of the last frame's
    queries, which meet all of them.
    """
    frames, rows, columns, channels, wide = 33, 90, 160, 16, torch.float32
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(1, 2 * channels, frames, rows, columns, generator=generator)
    keys[:, :channels] *= 2
    queries = 2 * torch.randn(1, channels, 1, 4, 8, generator=generator)
    blocks = (block for frame in keys.split(1, dim=2) for block in frame.split(9, dim=3))
    found = attend(queries, blocks, wide)
    k, v = (part.flatten(2).transpose(1, 2) for part in keys.chunk(2, dim=1))
    q = queries.flatten(2).transpose(1, 2)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    theirs = F.scaled_dot_product_attention(q, k, v)
    assert error(found, exact) <= 1.05 * error(theirs, exact)
