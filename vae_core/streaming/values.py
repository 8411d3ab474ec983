"""Is what a caller hands over what it should be: a module, a dtype, a shape, values of pixels?

What is not gets one sentence, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..errors import InputError, LoweringError, SettingsError
from ..families.family import whose_latents
from ..geometry.region import Extent
from ..running.finite import first_not_finite
from ..settings import as_integer

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_MOST_FRAMES = 2**22
"""Two days, at 24 a second: what is more was mistyped, and its plan alone would fill the memory."""


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


class Placed(Protocol):
    """What lies on a device: a tensor, or frames that are read when they are wanted."""

    @property
    def device(self) -> torch.device: ...


def check_readable(x: Placed, device: torch.device, what: str) -> None:
    """`InputError` where one of the two is on `meta`, which holds no values, and the other is not;
    what a tensor of another class holds is that class's business.

    device: what would be computed on.
    """
    if isinstance(x, Tensor) and type(x) not in (Tensor, nn.Parameter):
        return
    if (x.device.type == "meta") == (device.type == "meta"):
        return
    raise InputError(
        "on the device meta tensors hold no values, so that nothing can be computed there; got"
        f" {what} on {x.device} and a VAE on {device}. Put both on a real device; plans need"
        " neither."
    )


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


def checked_extent(shape: Sequence[int], channels: int, what: str) -> Extent:
    """(t, h, w) of a shape [b, channels, t, h, w]."""
    shape = sizes_of(shape, what)
    if len(shape) != 5:
        raise InputError(
            f"{what} needs five dimensions; got {len(shape)}: {tuple(shape)}. Add the missing"
            " ones, e.g. batch."
        )
    if min(shape) < 1:
        raise InputError(
            f"{what} needs at least one element in every dimension; got {tuple(shape)}."
        )
    if shape[1] != channels:
        raise InputError(
            f"{what} needs {channels} channels in dimension 1 for this VAE; got {shape[1]} in"
            f" {tuple(shape)}."
            " Another channel count means another model, or another order of dimensions."
            f"{whose_latents(shape[1])}"
        )
    if shape[2] > _MOST_FRAMES:
        raise InputError(
            f"{what} may have {_MOST_FRAMES} frames at most, each chunk of which is planned; got"
            f" {shape[2]}. Cut the clip, or give it as a stream."
        )
    return Extent(*shape[2:])


def check_module(module: object) -> None:
    """`LoweringError` for what is no module at all."""
    if not isinstance(module, nn.Module):
        raise LoweringError(
            f"a VAE must be a torch.nn.Module; got {type(module).__name__}. Files are loaded by"
            " vae_core.load."
        )


def check_trim(trim: object) -> None:
    """`InputError` for what is neither None nor the size of a clip."""
    if trim is None:
        return
    if not isinstance(trim, Extent):
        raise InputError(
            f"trim must be a vae_core.Extent(t, h, w) or None; got {trim!r}. Encoding gives one as"
            " posterior.fitted.source."
        )
    if min(as_integer(side) or 0 for side in (trim.t, trim.h, trim.w)) < 1:
        raise InputError(
            f"trim must have at least one frame, row and column, in whole numbers; got {trim!r}."
        )


def check_dtype(dtype: object) -> None:
    """`SettingsError` for what no VAE computes in; None stands for the VAE's own."""
    if dtype is not None and dtype not in DTYPES:
        names = ", ".join(str(one) for one in DTYPES)
        raise SettingsError(f"dtype must be one of {names}; got {dtype!r}.")


def checked_device(device: object) -> torch.device:
    """The device of that name; `SettingsError` for what names none."""
    try:
        return torch.device(cast("Any", device))
    except (RuntimeError, TypeError, ValueError):
        raise SettingsError(
            f"device must be a torch.device or a name such as 'cuda:0' or 'cpu'; got {device!r}."
        ) from None
