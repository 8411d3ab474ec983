"""How is a peer's run counted that does the same thing to hundreds of tiles?

1. What a call takes depends on shapes alone: of what it is given, and of what it keeps from one to
   the next.
2. The first call of a kind runs under the counter; for the others the same figures are added, and
   empty tensors of the same shapes stand in for what it gives and keeps.

`test_counted.py` shows that the figures are those of running every call. torch alone is imported,
so that another interpreter may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from .counting import Count, Counter


def _kind(value: Any) -> Hashable:
    """Of a tensor what decides about allocation and arithmetic; of anything else itself."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return tuple(map(_kind, value)) if isinstance(value, list | tuple) else value


def _like(kind: Hashable) -> Any:
    """An empty tensor of that kind, or the value itself."""
    if isinstance(kind, tuple) and len(kind) == 3 and isinstance(kind[1], torch.dtype):
        shape, dtype, device = kind
        return torch.empty(shape, dtype=dtype, device=device)
    return kind


def each_shape_once(counter: Counter, run: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """`run`, which keeps nothing, counted anew only for shapes that it has not had."""
    known: dict[Hashable, tuple[Count, Hashable]] = {}

    def call(x: Tensor) -> Tensor:
        kind = _kind(x)
        if kind in known:
            found, made = known[kind]
            counter.add(found)
            return _like(made)
        results: list[Tensor] = []
        found = counter.measure(lambda: results.append(run(x)))
        known[kind] = found, _kind(results[0])
        return results.pop()

    return call


def each_state_once(counter: Counter, coder: torch.nn.Module) -> None:
    """Let `coder`, whose calls keep what `feat_cache` and `feat_idx` hold, count each kind of call
    once.
    """
    forward: Callable[..., Tensor] = coder.forward
    known: dict[Hashable, tuple[Count, Hashable, tuple[Hashable, ...], list[int]]] = {}

    def call(x: Tensor, *, feat_cache: list[Any], feat_idx: list[int], **rest: Any) -> Tensor:
        kind = _kind(x), _kind(feat_cache), tuple(feat_idx), tuple(rest.items())
        if kind in known:
            found, made, kept, index = known[kind]
            counter.add(found)
            feat_cache[:] = map(_like, kept)
            feat_idx[:] = index
            return _like(made)
        results: list[Tensor] = []
        given = {"feat_cache": feat_cache, "feat_idx": feat_idx, **rest}
        found = counter.measure(lambda: results.append(forward(x, **given)))
        kept = tuple(map(_kind, feat_cache))
        known[kind] = found, _kind(results[0]), kept, list(feat_idx)
        return results.pop()

    coder.forward = call
