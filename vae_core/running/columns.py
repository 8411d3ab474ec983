"""How does each place attend to itself in the frames up to its own?

Places are rows of a batch, and heads lie in runs of channels. Keys come in blocks of frames, oldest
first; what is kept while they pass is what `attention` keeps. A block that holds later frames than
some query hides them from it. The first block holds the clip's first frame, which every query sees.

What is allocated here is what `planning.attending` counts; change both together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..program.parts import Attend


def attend_columns(
    queries: Tensor, first: int, blocks: Iterator[Tensor], mix: Attend, wide: torch.dtype
) -> Tensor:
    """Attention of each place, scaled by 1 / sqrt(channels of a head).

    queries: [b, c, t, h, w], of the clip's frames from `first` on. blocks: of keys and values side
    by side, [b, 2c, frames, h, w], of the same places and of all frames from the clip's first on.
    wide: what is computed in. The result is [b * h * w, t, c] in it.
    """
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
        if start + frames - 1 > first:
            logits += _hidden(range(first, first + q.shape[2]), range(start, start + frames), q)
        risen = torch.maximum(most, logits.amax(3, keepdim=True))
        shrink = torch.exp(most - risen)
        weights = logits.sub_(risen).exp_()
        total.mul_(shrink).add_(weights.sum(3, keepdim=True))
        acc.mul_(shrink).add_(torch.matmul(weights, values))
        most, start = risen, start + frames
        del logits, weights, values  # before the next block comes
    return acc.div_(total).transpose(1, 2).flatten(2)


def _heads(x: Tensor, mix: Attend, wide: torch.dtype) -> Tensor:
    """x [b, c, t, h, w] by places and heads [b * h * w, heads, t, d], copied."""
    b, c, t, h, w = x.shape
    laid = torch.empty((b, h, w, t, c), dtype=wide, device=x.device)
    laid.copy_(x.permute(0, 3, 4, 2, 1))
    return laid.view(b * h * w, t, mix.heads, c // mix.heads).transpose(1, 2)


def _normalise(x: Tensor, least: float) -> None:
    """Divide rows by their length, or by the least one that is divided by."""
    x.div_(torch.linalg.vector_norm(x, dim=3, keepdim=True).clamp_(min=least))


def _hidden(queries: range, keys: range, like: Tensor) -> Tensor:
    """What is added to logits [t, frames]: nothing, or without end where the key is later."""
    later = torch.tensor(keys, device=like.device) > torch.tensor(queries, device=like.device)[:, None]
    return like.new_zeros(later.shape).masked_fill_(later, float("-inf"))
