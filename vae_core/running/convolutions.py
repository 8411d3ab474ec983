"""By which route does an accelerator convolve? The probe says it for each class (see `probe`).

1. Channels last: input and result are so already. Libraries have their quickest kernels for it
   and allocate the least beside them.
2. Contiguous: the input is made so and the result is turned back, for devices that are wrong or
   slow otherwise. cuDNN 9.8 to 9.14 is kept from such convolutions in 16 bits by torch 2.9, in
   favour of a copy of the input for every tap; there it is called by its own name.
3. As pictures: in two dimensions, the taps in time side by side in the channels, for devices whose
   convolutions in three are wrong. Sums stay as wide as the library's own.

Where nobody has asked the device, the way that a kernel lies in memory says it.

In float32 a result is as exact as the process allows: with TF32 on, which is torch's own choice on
NVIDIA cards, products have 10 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.routes import Route
from ..planning.workspaces import ConvClass

_HALVES = (torch.bfloat16, torch.float16)
_KEPT_FROM = range(90800, 91500)
"""Versions of cuDNN that torch does without for contiguous tensors."""

_cudnn: Callable[..., Tensor] = torch.cudnn_convolution  # pyright: ignore[reportAttributeAccessIssue]

Strides = tuple[int, int, int]
"""From one output to the next, in (frames, rows, columns)."""

Routes = Mapping[ConvClass, Route]
_NONE: Routes = {}
_routes: ContextVar[Routes] = ContextVar("routes", default=_NONE)


@contextmanager
def routed(routes: Routes) -> Generator[None]:
    """Inside the block convolutions of these classes take their routes."""
    token = _routes.set(routes)
    try:
        yield
    finally:
        _routes.reset(token)


def class_of(weight: Tensor, stride: Strides) -> ConvClass:
    """The class of a convolution with `weight` [out, in, t, h, w]."""
    to, of, *taps = weight.shape
    frames, rows, columns = taps
    return ConvClass(of, to, (frames, rows, columns), stride[1], stride[0])


def on_accelerator(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides) -> Tensor:
    """x [b, c, t, h, w] convolved, without padding; channels last."""
    return by_route(_route_of(weight, stride), x, weight, bias, stride)


def by_route(
    route: Route, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides
) -> Tensor:
    """As `on_accelerator`, by a route of one's choice."""
    return _channels_last(_BY_ROUTE[route](x, weight, bias, stride))


def laid_out(weight: Tensor, stride: Strides, otherwise: torch.memory_format) -> Tensor:
    """`weight` as its route takes it, so that no tile makes a copy of its own; as `otherwise` says
    where it has none.
    """
    route = _known_route(weight, stride)
    return laid_out_for(route, weight) if route else weight.contiguous(memory_format=otherwise)


def laid_out_for(route: Route, weight: Tensor) -> Tensor:
    """`weight` as a route takes it."""
    return weight.contiguous(memory_format=_LAYOUTS[route])


def lies_channels_last(x: Tensor) -> bool:
    """Whether x is whole and channels last."""
    return x.is_contiguous(memory_format=torch.channels_last_3d)


def _known_route(weight: Tensor, stride: Strides) -> Route | None:
    routes = _routes.get()
    return routes.get(class_of(weight, stride)) if routes else None


def _route_of(weight: Tensor, stride: Strides) -> Route:
    own = Route.CHANNELS_LAST if lies_channels_last(weight) else Route.CONTIGUOUS
    return _known_route(weight, stride) or own


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _as_it_lies(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides) -> Tensor:
    return F.conv3d(_channels_last(x), _channels_last(weight), bias, stride=stride)


def _contiguous(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides) -> Tensor:
    convolved = _by_name if _kept_from_cudnn(x) else F.conv3d
    return convolved(x.contiguous(), weight.contiguous(), bias, stride)


def _as_pictures(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides) -> Tensor:
    taps, step = weight.shape[2], stride[0]
    made = (x.shape[2] - taps) // step + 1
    seen = [x[:, :, tap : tap + (made - 1) * step + 1 : step] for tap in range(taps)]
    pictures = torch.cat(seen, 1).transpose(1, 2).flatten(0, 1)  # [b * t, taps * c, h, w]
    kernel = weight.transpose(1, 2).flatten(1, 2)  # [out, taps * c, h, w]
    last = torch.channels_last
    pictures, kernel = (one.contiguous(memory_format=last) for one in (pictures, kernel))
    found = F.conv2d(pictures, kernel, bias, stride=stride[1:])
    return cast("Tensor", found.unflatten(0, (x.shape[0], made))).transpose(1, 2)


_BY_ROUTE: dict[Route, Callable[[Tensor, Tensor, Tensor | None, Strides], Tensor]] = {
    Route.CHANNELS_LAST: _as_it_lies,
    Route.CONTIGUOUS: _contiguous,
    Route.PICTURES: _as_pictures,
}
_LAYOUTS = {
    Route.CHANNELS_LAST: torch.channels_last_3d,
    Route.CONTIGUOUS: torch.contiguous_format,
    Route.PICTURES: torch.channels_last_3d,
}


def _kept_from_cudnn(x: Tensor) -> bool:
    if x.device.type != "cuda" or x.dtype not in _HALVES:
        return False
    return torch.backends.cudnn.is_available() and torch.backends.cudnn.version() in _KEPT_FROM


def _by_name(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Strides) -> Tensor:
    tf32 = torch.backends.cudnn.allow_tf32
    made = _cudnn(x, weight, (0, 0, 0), stride, (1, 1, 1), 1, False, False, tf32)
    return made if bias is None else made.add_(bias[None, :, None, None, None])
