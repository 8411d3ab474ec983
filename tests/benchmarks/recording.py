"""How long do the bare convolutions of a run take?

1. `Recorder` notes every convolution of a run: its operator, shapes, strides and arguments.
2. `Replay` makes views of that shape on one block of numbers, and runs them in the same order.

What a run takes beyond this is everything around its convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .counting import CONVOLUTIONS


@dataclass(frozen=True, slots=True)
class Layout:
    """shape and strides of a tensor, in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> Layout:
        return cls(tuple(x.shape), x.stride())

    @property
    def span(self) -> int:
        """Elements from the first to the last."""
        pairs = zip(self.shape, self.strides, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in pairs)

    def on(self, block: Tensor) -> Tensor:
        """The start of `block`, laid out so."""
        return block.as_strided(self.shape, self.strides)


@dataclass(frozen=True, slots=True)
class Packed:
    """shape of weights [out, in, t, h, w] that oneDNN has put in an order of its own."""

    shape: tuple[int, ...]

    @property
    def span(self) -> int:
        """Its elements."""
        return prod(self.shape)

    def on(self, block: Tensor) -> Tensor:
        """The start of `block`, packed."""
        weight = block[: self.span].view(self.shape)
        return torch.ops.mkldnn._reorder_convolution_weight(weight, (0, 0, 0), _EVERY, _EVERY, 1)


_EVERY = (1, 1, 1)


@dataclass(frozen=True, slots=True)
class Call:
    """One convolution. given: its arguments, tensors by how they lie."""

    function: Any
    given: tuple[Any, ...]

    @property
    def tensors(self) -> list[Layout | Packed]:
        """Those of its arguments."""
        return [one for one in self.given if isinstance(one, (Layout, Packed))]


def _noted(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return Packed(tuple(value.shape)) if value.is_mkldnn else Layout.of(value)


class Recorder(TorchDispatchMode):
    """Notes the convolutions inside the block, in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in CONVOLUTIONS:
            self.calls.append(Call(func, tuple(map(_noted, args))))
        return func(*args, **(kwargs or {}))


class Replay:
    """Runs recorded convolutions on numbers that do not matter, with weights that are packed."""

    def __init__(self, calls: list[Call], dtype: torch.dtype) -> None:
        self._calls = calls
        spans = [one.span for call in calls for one in call.tensors]
        self._block = torch.randn(max(spans), dtype=dtype)
        packed = {one for call in calls for one in call.tensors if isinstance(one, Packed)}
        self._packed = {one: one.on(self._block) for one in packed}
        self._out = torch.zeros(max(spans), dtype=dtype)  # apart from what is read

    @torch.inference_mode()
    def run(self) -> None:
        """All of them, one after the other; results are dropped."""
        for call in self._calls:
            adds = call.function.overloadpacket is torch.ops.mkldnn._convolution_pointwise_
            out, *given = map(self._made, call.given)
            call.function(call.given[0].on(self._out) if adds else out, *given)

    def _made(self, value: Any) -> Any:
        if isinstance(value, Packed):
            return self._packed[value]
        return value.on(self._block) if isinstance(value, Layout) else value
