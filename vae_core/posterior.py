"""What does an encoder say about a clip: a Gaussian for each latent element.

Moments come out of the encoder as [b, 2c, n, h, w]: means, then logarithms of variances. Sampling
happens once, on the full moments, with noise drawn on the CPU, so that a seed gives the same
latents on every device, tiling and chunking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .errors import InputError
from .geometry.fitting import Fitted
from .running.autocast import joined, no_autocast

_LOGVAR_RANGE = (-30.0, 20.0)
"""Beyond these the exponential is of no use in any dtype; the reference clamps alike."""


def clamp_moments(moments: Tensor) -> Tensor:
    """The encoder's output [b, 2c, n, h, w] with its logarithms of variances clamped in place."""
    moments[:, moments.shape[1] // 2 :].clamp_(*_LOGVAR_RANGE)
    return moments


@dataclass(frozen=True, slots=True)
class Posterior:
    """The Gaussian of a clip's latents; all tensors [b, c, n, h/r, w/r], unscaled.

    mean, logvar: its parameters.
    fitted: what was done to the clip's size.
    """

    mean: Tensor
    logvar: Tensor
    fitted: Fitted

    @classmethod
    def from_moments(cls, moments: Tensor, fitted: Fitted) -> Posterior:
        """The posterior with moments [b, 2c, n, h, w], the encoder's output."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(*_LOGVAR_RANGE), fitted)

    @property
    def moments(self) -> Tensor:
        """[b, 2c, n, h, w], to be saved by those who train."""
        return joined([self.mean, self.logvar], dim=1)

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        with no_autocast(self.logvar.device):
            return torch.exp(0.5 * self.logvar)

    def mode(self) -> Tensor:
        """The likeliest latents: the mean."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Latents drawn with noise from `generator` (on the CPU), or from torch's own CPU
        generator. Raises `InputError` for what is none.
        """
        if not isinstance(cast("object", generator), torch.Generator | None):
            raise InputError(
                f"noise comes from a torch.Generator; got {generator!r}. A seed becomes one by"
                " torch.Generator().manual_seed(seed)."
            )
        if generator is not None and generator.device.type != "cpu":
            raise InputError(
                f"noise is drawn on the CPU, the same for every device; got a generator on"
                f" {generator.device}. Make it by torch.Generator()."
            )
        noise = torch.randn(self.mean.shape, generator=generator, dtype=torch.float32, device="cpu")
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence from the unit Gaussian, [b], in nats summed over each
        clip.
        """
        with no_autocast(self.mean.device):
            terms = self.mean.square() + self.logvar.exp() - 1.0 - self.logvar
            return 0.5 * terms.sum(dim=(1, 2, 3, 4))


class MomentStream(Iterator[Tensor]):
    """Moments [b, 2c, t, h, w] of one chunk after the other: means, then logarithms of variances.

    Together they are what `VideoVAE.encode(...).moments` holds. Invariant: `fitted` is known once
    the stream has ended.
    """

    def __init__(self, chunks: Iterator[Tensor | Fitted]) -> None:
        self._chunks = chunks
        self._fitted: Fitted | None = None

    def __next__(self) -> Tensor:
        for item in self._chunks:
            if isinstance(item, Tensor):
                return clamp_moments(item)
            self._fitted = item
        raise StopIteration

    @property
    def fitted(self) -> Fitted:
        """What was done to the clip's size. Raises `InputError` before the stream has ended."""
        if self._fitted is None:
            raise InputError("the size of a stream is known once it has ended; pull all of it.")
        return self._fitted

    def close(self) -> None:
        """Give up, and free what the rest would have needed."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()
