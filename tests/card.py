"""What a card can do and `meta` cannot: importing this teaches it.

1. A card takes the statistics of channels in one pass; torch has that for processors and for CUDA.
2. A card's convolution of what is channels last is channels last; on `meta` it would be contiguous.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_LIBRARY = torch.library.Library("aten", "IMPL")
_conv3d = F.conv3d


def _statistics(x, running_mean, running_var, momentum):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return tuple(torch.empty(x.shape[1], dtype=dtype, device=x.device) for _ in range(2))


def _convolved(x, *rest, **named):
    out = _conv3d(x, *rest, **named)
    if out.device.type != "meta" or not x.is_contiguous(memory_format=torch.channels_last_3d):
        return out
    _, c, t, h, w = out.shape
    return out.as_strided(out.shape, (t * h * w * c, 1, h * w * c, w * c, c))


_LIBRARY.impl("batch_norm_update_stats", _statistics, "Meta")
F.conv3d = _convolved
