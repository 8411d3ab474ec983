"""Can these values go through a network: are they floating point, and finite?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..errors import InputError
from ..running.finite import first_not_finite
from ..settings import as_integer

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_tensor(x: object, what: str) -> None:
    """`InputError` for what is no tensor with one value after the other in memory."""
    if not isinstance(x, Tensor):
        raise InputError(
            f"{what} must be a torch.Tensor [b, c, t, h, w]; got {type(x).__name__}. Convert it"
            " first, such as by torch.from_numpy."
        )
    if x.layout is not torch.strided or x.is_nested:
        kind = "a nested one" if x.is_nested else str(x.layout)
        raise InputError(f"{what} must be a dense tensor; got {kind}. Call to_dense() first.")


def sizes_of(shape: object, what: str) -> tuple[int, ...]:
    """A shape as plain numbers; `InputError` for what is none."""
    sizes = cast("Sequence[object]", shape) if isinstance(shape, Sequence) else (None,)
    numbers = [as_integer(size) for size in sizes]
    whole = tuple(number for number in numbers if number is not None)
    if len(whole) < len(numbers):
        raise InputError(f"{what} needs a shape of five whole numbers; got {shape!r}.")
    return whole


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
