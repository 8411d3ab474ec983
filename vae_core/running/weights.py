"""Where do a program's weights come from when a step runs?

A program names module paths; `Weights` looks them up in the live module each time, so that a host
which moves or replaces parameters between runs (offloading) is followed. What a step needs is
returned on the run's device and in its
dtype: the parameter itself where it is so already, a passing copy otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .kernels import statistics_dtype


@dataclass(frozen=True, slots=True)
class Weights:
    """The parameters of `module`, by path.

    dtype, device: what the run computes in and on.
    """

    module: nn.Module
    dtype: torch.dtype
    device: torch.device

    def _parameter(self, path: str, name: str, dtype: torch.dtype) -> Tensor | None:
        found = cast("Tensor | None", getattr(self.module.get_submodule(path), name))
        return None if found is None else found.detach().to(self.device, dtype)

    def conv(self, path: str) -> tuple[Tensor, Tensor | None]:
        """Weight [out, in, t, h, w] and bias [out] of a convolution; one of single frames has t =
        1.
        """
        weight = cast("Tensor", self._parameter(path, "weight", self.dtype))
        bias = self._parameter(path, "bias", self.dtype)
        return (weight.unsqueeze(2) if weight.ndim == 4 else weight), bias

    def voxel_norm(self, path: str) -> tuple[Tensor, Tensor | None]:
        """Weight and bias [c] of a norm of single voxels, in the statistics' dtype; no bias where
        it has none.
        """
        wide = statistics_dtype(self.dtype)
        module = self.module.get_submodule(path)
        weight = cast("Tensor", self._parameter(path, "gamma", wide))
        biased = isinstance(getattr(module, "bias", None), Tensor)
        bias = self._parameter(path, "bias", wide) if biased else None
        return weight.flatten(), None if bias is None else bias.flatten()

    def affine(self, path: str) -> tuple[Tensor, Tensor]:
        """Weight and bias [c] of a GroupNorm in the statistics' dtype; ones and zeros where it has
        none.
        """
        wide = statistics_dtype(self.dtype)
        weight, bias = (self._parameter(path, name, wide) for name in ("weight", "bias"))
        channels = cast("nn.GroupNorm", self.module.get_submodule(path)).num_channels
        ones = torch.ones(channels, dtype=wide, device=self.device)
        return (ones if weight is None else weight), (
            torch.zeros_like(ones) if bias is None else bias
        )
