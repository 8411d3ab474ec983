"""Does a tensor of frames hold a value that is not finite, and where first?

Results are looked at as inputs are: an overflow, in float16 mostly, never goes on as a picture or
as latents. Looking reads every value once, keeps no copy of more than a frame, and waits for the
device once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ResultError
from .autocast import no_autocast


def first_not_finite(x: Tensor) -> int | None:
    """The first frame of x [b, c, t, h, w] with NaN or infinity; None where there is none, and for
    a tensor without readable values.
    """
    if type(x) not in (Tensor, torch.nn.Parameter) or x.is_meta:
        return None
    if not x.numel():
        return None
    with no_autocast(x.device):
        ends = [torch.stack(torch.aminmax(x[:, :, frame])) for frame in range(x.shape[2])]
        broken = (~torch.isfinite(torch.stack(ends)).all(dim=1)).nonzero()
    return int(broken[0]) if len(broken) else None


def check_result(result: Tensor, what: str, dtype: torch.dtype, first_frame: int) -> None:
    """`ResultError` unless a chunk's result [b, c, t, h, w] is finite.

    what: the program that made it. dtype: what it was computed in. first_frame: the number of the
    result's first frame in the clip.
    """
    frame = first_not_finite(result)
    if frame is None:
        return
    name = str(dtype).removeprefix("torch.")
    remedy = (
        "Use bfloat16 or float32."
        if dtype == torch.float16
        else "Look at what went in, and at the weights: no usual clip leads there."
    )
    raise ResultError(
        f"{what} gave NaN or infinity, first in frame {first_frame + frame} of the result: values"
        f" went beyond what {name} holds. {remedy}"
    )
