"""How are the statistics of a store gathered on an accelerator, in one small operation a tile?

1. `measured` takes the mean and the variance of each channel of a result, in one pass.
2. `Parts` keeps them side by side, part by part, and folds many of them into one.
3. `Parts.over` puts parts, and channels of a group, together when a norm asks for them; with the
   bias, which the measured results were still without.

With parts of n_i voxels, N in all: mean = sum n_i mean_i / N, and
variance = sum n_i (variance_i + (mean_i - mean)^2) / N. A processor merges each tile's moments at
once (`kernels.measure`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..program.moments import Moments

channel_statistics: Callable[..., tuple[Tensor, Tensor]] = torch.batch_norm_update_stats  # pyright: ignore
"""Mean and variance of each channel of x [b, c, ...], and two running ones that it would update."""

_scaled: Callable[[list[Tensor], list[float]], list[Tensor]] = torch._foreach_mul  # pyright: ignore

_MOST_PARTS = 32
"""Parts that are kept side by side; their memory is within the plan's slack."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Statistics of the channels of parts of a store, which share no voxel.

    counts: voxels of each part. means, variances: of each part [b, c], in the statistics' dtype.
    shift: [1, c, 1, 1, 1], what is added to all of the store after it was measured; None for
        nothing.
    """

    counts: tuple[int, ...]
    means: tuple[Tensor, ...]
    variances: tuple[Tensor, ...]
    shift: Tensor | None = None

    def merge(self, other: Parts) -> Parts:
        """The parts of both."""
        joined = Parts(
            self.counts + other.counts,
            self.means + other.means,
            self.variances + other.variances,
            self.shift,
        )
        return joined if len(joined.counts) < _MOST_PARTS else joined.folded()

    def repeated(self, times: int) -> Parts:
        """The same voxels counted `times` times."""
        return replace(self, counts=tuple(times * count for count in self.counts))

    def folded(self) -> Parts:
        """All parts as one."""
        if len(self.counts) == 1:
            return self
        count, mean, variance = self._merged(self.means[0].shape[1], None)
        return Parts((count,), (mean,), (variance,), self.shift)

    def over(self, groups: int) -> Moments:
        """The moments over each of `groups` runs of channels; mean and m2 are [b, groups]."""
        _, mean, variance = self._merged(groups, self.shift)
        return Moments(1, mean, variance)

    def _merged(self, groups: int, shift: Tensor | None) -> tuple[int, Tensor, Tensor]:
        """Voxels of all parts, and the mean and the variance [b, groups] of them."""
        total, (b, channels) = sum(self.counts), self.means[0].shape
        shape = (len(self.counts), b, groups, channels // groups)
        shares = [count / total / shape[3] for count in self.counts]
        means = torch.stack(self.means)
        if shift is not None:
            means += shift.flatten()
        means = means.view(shape)
        mean = _sum(means, shares)
        apart = means - mean.unsqueeze(2)
        wider = torch.addcmul(torch.stack(self.variances).view(shape), apart, apart)
        return total, mean, _sum(wider, shares)


def _sum(parts: Tensor, shares: list[float]) -> Tensor:
    """The sum [b, groups] of parts [n, b, groups, c / groups], each times its share."""
    if len(set(shares)) == 1:
        return parts.sum((0, 3)).mul_(shares[0])
    return torch.stack(_scaled(list(parts.unbind()), shares)).sum((0, 3))


def measured(x: Tensor, shift: Tensor | None) -> Parts:
    """Statistics of the channels of x [b, c, t, h, w], to all of which `shift` will be added."""
    count = x[0, 0].numel()
    if x.shape[0] == 1:
        mean, variance = channel_statistics(x, None, None, 0.0)
        return Parts((count,), (mean[None],), (variance[None],), shift)
    found = [channel_statistics(clip, None, None, 0.0) for clip in _clips(x)]
    means, variances = (torch.stack(part) for part in zip(*found, strict=True))
    return Parts((count,), (means,), (variances,), shift)


def _clips(x: Tensor) -> list[Tensor]:
    return [x[index : index + 1] for index in range(x.shape[0])]


def finished(statistics: Moments | Parts, groups: int) -> Moments:
    """The moments of a store over each of `groups` runs of its channels."""
    return statistics.over(groups) if isinstance(statistics, Parts) else statistics
