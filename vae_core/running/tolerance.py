"""Is what a device computed right, beside the same in float32 on the processor?"""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = {torch.bfloat16: 2**-7, torch.float16: 2**-8, torch.float32: 2**-9}
"""Largest difference, as a share of the range, of a result that is right. In float32 products may
have 10 bits (see `convolutions`).
"""

_NARROWEST = 1e-9  # in float64


def tolerance(dtype: torch.dtype) -> float:
    """How far from the processor's a right result may be, as a share of the range."""
    return TOLERANCE.get(dtype, _NARROWEST)


def distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference as a share of the range; infinite where something is no number."""
    if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
        return float("inf")
    reach = (wanted.max() - wanted.min()).item()
    return (found.to(wanted.dtype) - wanted).abs().max().item() / max(reach, 1e-30)
