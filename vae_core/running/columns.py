"""How does each place attend to itself in other frames of the clip?

Places are rows of a batch, and heads lie in runs of channels. Keys come in blocks of frames, oldest
first; what is kept while they pass is what `attention` keeps. Where a block holds later frames than
some query may see, it is hidden from that query: the first block holds the clip's first frame,
which every query sees, so that none is without a key.

What is allocated here is what `planning.attending` counts; change both together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from ..program.parts import Attend


def attend_columns(
    queries: Tensor, first: int | None, blocks: Iterator[Tensor], mix: Attend, wide: torch.dtype
) -> Tensor:
    """Attention of each place, scaled by 1 / sqrt(channels of a head).

    queries: [b, c, t, h, w]. first: the number of their first frame, of those that all blocks hold,
        where no query sees a later frame than its own; None where each sees all.
    blocks: of keys and values side by side, [b, 2c, frames, h, w], of the same places, from the
        clip's first frame on.
    wide: what is computed in. The result is [b, h, w, heads, t, c / heads] in it.
    """
    b, _, t, h, w = queries.shape
    q = _heads(queries, mix, wide)  # [n, heads, t, d]
    if mix.least is not None:
        _normalise(q, mix.least)
    q.mul_(q.shape[3] ** -0.5)
    acc = torch.zeros_like(q)
    most = q.new_full((*q.shape[:3], 1), float("-inf"))
    total = torch.zeros_like(most)
    start = 0
    for block in blocks:
        keys, values = (_heads(part, mix, wide) for part in block.chunk(2, dim=1))
        frames = block.shape[2]
        del block
        if mix.least is not None:
            _normalise(keys, mix.least)
        logits = torch.matmul(q, keys.transpose(2, 3))  # [n, heads, t, frames]
        del keys
        if first is not None and start + frames - 1 > first:
            logits += _hidden(range(first, first + t), range(start, start + frames), logits)
        risen = torch.maximum(most, logits.amax(3, keepdim=True))
        shrink = torch.exp(most - risen)
        weights = logits.sub_(risen).exp_()
        total.mul_(shrink).add_(weights.sum(3, keepdim=True))
        acc.mul_(shrink).add_(torch.matmul(weights, values))
        most, start = risen, start + frames
        del logits, weights, values  # before the next block comes
    return acc.div_(total).view(b, h, w, *acc.shape[1:])


def _heads(x: Tensor, mix: Attend, wide: torch.dtype) -> Tensor:
    """x [b, c, t, h, w] by places and heads [b * h * w, heads, t, d], copied."""
    b, c, t, h, w = x.shape
    laid = torch.empty((b, h, w, mix.heads, t, c // mix.heads), dtype=wide, device=x.device)
    laid.copy_(by_heads(x, mix))
    return laid.flatten(0, 2)


def by_heads(x: Tensor, mix: Attend) -> Tensor:
    """A view of x [b, c, t, h, w] as [b, h, w, heads, t, c / heads]."""
    split = cast("Tensor", x.unflatten(1, (mix.heads, -1)))
    return split.permute(0, 4, 5, 1, 3, 2)


def _normalise(x: Tensor, least: float) -> None:
    """Divide rows by their length, or by the least one that is divided by."""
    length = cast("Tensor", torch.linalg.vector_norm(x, dim=3, keepdim=True))
    x.div_(length.clamp_(min=least))


def _hidden(queries: range, keys: range, like: Tensor) -> Tensor:
    """What is added to logits [t, frames]: nothing, or without end where the key is later."""
    numbers = (torch.arange(part.start, part.stop, device=like.device) for part in (queries, keys))
    query, key = numbers
    later = key > query[:, None]
    return like.new_zeros(len(queries), len(keys)).masked_fill_(later, float("-inf"))
