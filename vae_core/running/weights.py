"""Where do a program's weights come from when a step runs?

A program names module paths; `Weights` looks them up in the live module each time, so that a host
which moves or replaces parameters between runs (offloading) is followed. What a step needs is
returned on the run's device and in its dtype: the parameter itself where it is so already, a
passing copy otherwise.

A host that pages parameters itself lends them (`Lender`): each module once a step, until the step
is over.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..planning.routes import Route
from ..planning.workspaces import ConvClass
from ..program.parts import Form, Norm, Timestep
from .convolutions import Routes
from .kernels import statistics_dtype

Lent: TypeAlias = "tuple[Tensor | None, Tensor | None]"
"""Weight and bias of a module."""


class Lender(Protocol):
    """What a host lends parameters through, where it keeps them elsewhere than in modules."""

    def __call__(
        self, module: nn.Module, dtype: torch.dtype, device: torch.device
    ) -> AbstractContextManager[Lent] | None:
        """A block in which the module's own weight and bias, on the device and in the dtype, stay
        as they are; None for a module whose parameters are to be read as they lie.
        """
        ...


@dataclass(slots=True)
class _Loans:
    """What has been lent since the step began, by module path."""

    lent: dict[str, Lent] = field(default_factory=dict[str, Lent])
    ends: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, slots=True)
class Weights:
    """The parameters of `module`, by path.

    dtype, device: what the run computes in and on.
    lender: of the host that keeps them; None where they are read from the module.
    layout: how kernels lie in memory, and so the route of convolutions (see `convolutions`).
    routes: of the classes of convolutions that have one for themselves.
    """

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    lender: Lender | None = None
    layout: torch.memory_format = torch.channels_last_3d
    routes: Routes = field(default_factory=dict[ConvClass, Route])
    _loans: _Loans = field(default_factory=_Loans, init=False, repr=False, compare=False)

    def give_back(self) -> None:
        """Let the host have back what it lent: the step is over, and what was read may change."""
        self._loans.lent.clear()
        self._loans.ends.close()

    def _parameter(self, path: str, name: str, dtype: torch.dtype) -> Tensor | None:
        lent = self._lent(path, dtype) if self.lender and name in _LENT else None
        if lent is not None:
            found = lent[_LENT.index(name)]
        else:
            found = cast("Tensor | None", getattr(self.module.get_submodule(path), name))
        return None if found is None else found.detach().to(self.device, dtype)

    def _lent(self, path: str, dtype: torch.dtype) -> Lent | None:
        """What the host lends of a module for this step; None where it does not keep it."""
        found = self._loans.lent.get(path)
        if found is None and self.lender:
            loan = self.lender(self.module.get_submodule(path), dtype, self.device)
            if loan is not None:
                found = self._loans.lent[path] = self._loans.ends.enter_context(loan)
        return found

    def conv(self, path: str) -> tuple[Tensor, Tensor | None]:
        """Weight [out, in, t, h, w] and bias [out] of a convolution; one of single frames has t =
        1, a linear layer h = w = 1 as well.
        """
        weight = cast("Tensor", self._parameter(path, "weight", self.dtype))
        bias = self._parameter(path, "bias", self.dtype)
        if weight.ndim == 2:
            weight = weight[..., None, None]
        return (weight.unsqueeze(2) if weight.ndim == 4 else weight), bias

    def voxel_norm(self, norm: Norm) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias [c] of a norm of single voxels, in the statistics' dtype; None for those
        that it has not.
        """
        if norm.form is Form.RMS:
            return self._told(norm.timestep) if norm.timestep else (None, None)
        if norm.form is Form.LAYER:
            return self.affine(norm.path)
        if norm.form is Form.NONE:
            mean, std = self.statistics(norm.path) if norm.path else (None, None)
            return std, mean
        wide, path = statistics_dtype(self.dtype), norm.path
        module = self.module.get_submodule(path)
        weight = cast("Tensor", self._parameter(path, "gamma", wide))
        biased = isinstance(getattr(module, "bias", None), Tensor)
        bias = self._parameter(path, "bias", wide) if biased else None
        return weight.flatten(), None if bias is None else bias.flatten()

    def _told(self, timestep: Timestep) -> tuple[Tensor, Tensor]:
        """Scale and shift [c] for latents with so much noise, in the statistics' dtype."""
        wide = statistics_dtype(self.dtype)
        first, second = (f"{timestep.embedder}.timestep_embedder.linear_{n}" for n in (1, 2))
        weight = cast("Tensor", self._parameter(first, "weight", self.dtype))
        units = cast("Tensor", self._parameter(timestep.scaled_by, _UNITS, wide))
        wave = _wave(timestep.value * units, weight.shape[1]).to(self.dtype)
        hidden = F.silu(F.linear(wave, weight, self._parameter(first, "bias", self.dtype)))
        weight = cast("Tensor", self._parameter(second, "weight", self.dtype))
        made = F.linear(hidden, weight, self._parameter(second, "bias", self.dtype)).to(wide)
        table = cast("Tensor", self._parameter(timestep.owner, timestep.table, wide))
        shift, scale = ((made.view_as(table) + table)[row] for row in timestep.rows)
        return scale + 1, shift

    def statistics(self, path: str) -> tuple[Tensor, Tensor]:
        """Mean and deviation [c] by which latents are normalised within a network, in the
        statistics' dtype.
        """
        wide, names = statistics_dtype(self.dtype), ("mean-of-means", "std-of-means")
        mean, std = (cast("Tensor", self._parameter(path, name, wide)) for name in names)
        return mean, std

    def affine(self, path: str) -> tuple[Tensor, Tensor]:
        """Weight and bias [c] of a GroupNorm or LayerNorm in the statistics' dtype; ones and zeros
        where it has none.
        """
        wide = statistics_dtype(self.dtype)
        weight, bias = (self._parameter(path, name, wide) for name in ("weight", "bias"))
        if weight is None or bias is None:
            norm = cast("Any", self.module.get_submodule(path))
            channels = getattr(norm, "num_channels", None) or norm.normalized_shape[0]
            ones = torch.ones(channels, dtype=wide, device=self.device)
            weight = ones if weight is None else weight
            bias = torch.zeros_like(ones) if bias is None else bias
        return weight, bias


_UNITS = "timestep_scale_multiplier"


def _wave(value: Tensor, width: int) -> Tensor:
    """Cosines, then sines of `value` at `width` / 2 frequencies from 1 down to 1/10000 [width]."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=value.device)
    angle = value.float() * torch.exp(-math.log(10000.0) * steps / half)
    return torch.cat((angle.cos(), angle.sin()))


_LENT = ("weight", "bias")


def has_far_kernels(module: nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether steps have to copy kernels of `module` to `device`, or to another dtype."""
    kernels = (p for p in module.parameters() if p.ndim >= 4)
    return any(p.dtype != dtype or not _is_on(p, device) for p in kernels)


def _is_on(parameter: Tensor, device: torch.device) -> bool:
    """Whether it lies there; a device without a number is any of its kind."""
    there = parameter.device
    return there.type == device.type and (device.index in (None, there.index))
