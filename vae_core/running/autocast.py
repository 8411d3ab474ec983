"""What does a caller's `torch.autocast` do to the engine? Nothing.

A run computes in the VAE's dtype, which the plan has counted bytes in: autocast would change it for
some routes of a convolution and not for others. A VAE is made for another dtype instead
(`vae_core.load(path, dtype=...)`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block in which operations on `device` have the dtypes of their arguments."""
    if not torch.amp.is_autocast_available(device.type):  # such as `meta`
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`parts`, at least one, all of one dtype, end to end in that dtype. Under autocast `torch.cat`
    takes none but float32 and autocast's own.
    """
    with no_autocast(parts[0].device):
        return torch.cat(list(parts), dim)
