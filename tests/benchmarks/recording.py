"""How long do the bare convolutions of a run take?

1. `Recorder` notes every convolution of a run: its operator, shapes, strides and arguments.
2. `Replay` makes views of that shape on one block of numbers, and runs them in the same order.

What a run takes beyond this is everything around its convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass
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
class Call:
    """One convolution. rest: what comes after the bias."""

    function: Any
    x: Layout
    weight: Layout
    has_bias: bool
    rest: tuple


class Recorder(TorchDispatchMode):
    """Notes the convolutions inside the block, in `calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in CONVOLUTIONS:
            x, weight, bias, *rest = (*args, None) if len(args) == 2 else args
            layouts = (Layout.of(x), Layout.of(weight))
            self.calls.append(Call(func, *layouts, bias is not None, tuple(rest)))
        return func(*args, **(kwargs or {}))


class Replay:
    """Runs recorded convolutions on numbers that do not matter."""

    def __init__(self, calls: list[Call], dtype: torch.dtype) -> None:
        self._calls = calls
        self._x = torch.randn(max(call.x.span for call in calls), dtype=dtype)
        self._weight = torch.randn(max(call.weight.span for call in calls), dtype=dtype)

    @torch.inference_mode()
    def run(self) -> None:
        """All of them, one after the other; results are dropped."""
        for call in self._calls:
            bias = self._weight[: call.weight.shape[0]] if call.has_bias else None
            call.function(call.x.on(self._x), call.weight.on(self._weight), bias, *call.rest)
