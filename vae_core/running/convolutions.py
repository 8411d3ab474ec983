"""By which route does an accelerator convolve? The way that a kernel lies in memory says it.

1. Channels last: input and result are so already. Libraries have their quickest kernels for it
   and allocate the least beside them.
2. Contiguous: the input is made so and the result is turned back, for devices that are wrong or
   slow otherwise. cuDNN 9.8 to 9.14 is kept from such convolutions in 16 bits by torch 2.9, in
   favour of a copy of the input for every tap; there it is called by its own name.

In float32 a result is as exact as the process allows: with TF32 on, which is torch's own choice on
NVIDIA cards, products have 10 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_HALVES = (torch.bfloat16, torch.float16)
_KEPT_FROM = range(90800, 91500)
"""Versions of cuDNN that torch does without for contiguous tensors."""

_cudnn: Callable[..., Tensor] = torch.cudnn_convolution  # pyright: ignore[reportAttributeAccessIssue]


def on_accelerator(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int]
) -> Tensor:
    """x [b, c, t, h, w] convolved, without padding; channels last."""
    if lies_channels_last(weight):
        return _channels_last(F.conv3d(_channels_last(x), weight, bias, stride=stride))
    convolved = _by_name if _kept_from_cudnn(x) else F.conv3d
    return _channels_last(convolved(x.contiguous(), weight, bias, stride))


def lies_channels_last(x: Tensor) -> bool:
    """Whether x is whole and channels last."""
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _kept_from_cudnn(x: Tensor) -> bool:
    if x.device.type != "cuda" or x.dtype not in _HALVES:
        return False
    return torch.backends.cudnn.is_available() and torch.backends.cudnn.version() in _KEPT_FROM


def _by_name(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int, int]
) -> Tensor:
    tf32 = torch.backends.cudnn.allow_tf32
    made = _cudnn(x, weight, (0, 0, 0), stride, (1, 1, 1), 1, False, False, tf32)
    return made if bias is None else made.add_(bias[None, :, None, None, None])
