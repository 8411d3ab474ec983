"""Can these values go through a network: are they floating point, and finite?"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..running.finite import first_not_finite

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_values(x: Tensor, what: str, remedy: str, first_frame: int = 0) -> None:
    """`InputError` unless x [b, c, t, h, w] is floating point and finite; a tensor without readable
    values is taken as it is.

    first_frame: the number of x's first frame, for the sentence.
    """
    if x.dtype not in DTYPES:
        raise InputError(
            f"{what} must be float32, float64, bfloat16 or float16; got {x.dtype}. Convert it"
            f" first: {remedy}."
        )
    frame = first_not_finite(x)
    if frame is not None:
        raise InputError(
            f"{what} holds NaN or infinite values, first in frame {first_frame + frame}; the"
            " network would spread them."
        )
