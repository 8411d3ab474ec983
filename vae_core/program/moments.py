"""How are the statistics of a tensor put together from its parts, without a second pass over it?

Each part contributes (count, mean, M2), where M2 is the sum of squared distances from the part's
own mean. Two parts merge exactly (Chan, Golub and LeVeque 1979):

    count = n_a + n_b,   d = mean_b - mean_a
    mean  = mean_a + d * n_b / count
    M2    = M2_a + M2_b + d^2 * n_a * n_b / count

The spread of the parts' means is the last term; leaving it out is the common mistake. Only
arithmetic is used, so the same code serves numbers and tensors, and this module needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Moments:
    """Statistics of some voxels. Invariant: variance = m2 / count.

    count: voxels that went in, counted with multiplicity.
    mean, m2: numbers, or tensors of one shape and dtype (float32 or wider).
    """

    count: int
    mean: Any
    m2: Any

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets of voxels together; the sets must not share a voxel."""
        count = self.count + other.count
        distance = other.mean - self.mean
        mean = self.mean + distance * (other.count / count)
        m2 = self.m2 + other.m2 + distance * distance * (self.count * other.count / count)
        return Moments(count, mean, m2)

    def repeated(self, times: int) -> Moments:
        """The moments of the same voxels counted `times` times."""
        return Moments(self.count * times, self.mean, self.m2 * times)

    @property
    def variance(self) -> Any:
        """Population variance (divided by count, as GroupNorm does)."""
        return self.m2 / self.count
