"""How does a tile of queries attend to the keys of a frame that does not fit at once?

Keys come in blocks. For every query three things are kept while they pass, all in float32 or wider:

    m    the largest logit so far
    l    the sum of exp(logit - m)
    acc  the sum of exp(logit - m) * value

A block that raises m scales l and acc down by exp(m_old - m_new). In the end acc / l is the softmax
over all keys, as exact as one that saw them together (Milakov and Gimelshein 2018).

What is allocated here is what `bytes_of_block` counts; change both together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def attend(queries: Tensor, blocks: Iterator[Tensor], wide: torch.dtype) -> Tensor:
    """Attention with one head, scaled by 1 / sqrt(channels).

    queries: [b, c, 1, h, w]. blocks: of keys and values side by side, [b, 2c, 1, rows, columns].
    wide: what is computed in. The result is [b, h * w, c] in it.
    """
    q = _rows(queries, wide)  # [b, n, c]
    q.mul_(q.shape[2] ** -0.5)
    acc = torch.zeros_like(q)
    most = q.new_full((*q.shape[:2], 1), float("-inf"))
    total = torch.zeros_like(most)
    for block in blocks:
        keys, values = (_rows(part, wide) for part in block.chunk(2, dim=1))
        del block
        logits = torch.bmm(q, keys.transpose(1, 2))  # [b, n, keys]
        del keys
        risen = torch.maximum(most, logits.amax(2, keepdim=True))
        shrink = torch.exp(most - risen)
        weights = logits.sub_(risen).exp_()
        total.mul_(shrink).add_(weights.sum(2, keepdim=True))
        acc.mul_(shrink).baddbmm_(weights, values)
        most = risen
        del logits, weights, values  # before the next block comes
    return acc.div_(total)


def _rows(x: Tensor, wide: torch.dtype) -> Tensor:
    """x [b, c, 1, h, w] as rows of channels [b, h * w, c], copied."""
    b, c, _, h, w = x.shape
    rows = torch.empty((b, h, w, c), dtype=wide, device=x.device)
    rows.copy_(x[:, :, 0].permute(0, 2, 3, 1))
    return rows.view(b, h * w, c)
