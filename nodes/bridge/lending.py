"""How does the engine read weights that the host keeps and moves by itself?

The host's own layers (`comfy_cast_weights`) may hold a weight in a file or in the computer's
memory, and bring it to the card into a page that it can take back. Reading such a parameter as it
lies copies it for every step of every chunk. So they are read as the host's own `forward` reads
them:

1. A page that is there already is used as it is, and held until the step is over.
2. What found no page comes through a buffer that the host uses again for its next layer: it is
   copied out at once, and counted (`Lender.passing_bytes`).
3. Layers of other makers are left to the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from ...vae_core.running.weights import Lent
from . import host


class Lender:
    """What one run's weights are read through; see `vae_core.running.weights.Lender`.

    passing_bytes: of weights that the host pages, and for which it had no page.
    """

    def __init__(self) -> None:
        self.passing_bytes = 0
        self._passing: set[nn.Module] = set()

    def __call__(
        self, module: nn.Module, dtype: torch.dtype, device: torch.device
    ) -> AbstractContextManager[Lent] | None:
        """The module's weight and bias for one step; None where the host has no hand in them."""
        operations = host.operations()
        if not _is_kept(module) or not hasattr(operations, "uncast_bias_weight"):
            return None
        return self._loan(operations, module, dtype, device)

    @contextmanager
    def _loan(
        self, operations: Any, module: Any, dtype: torch.dtype, device: torch.device
    ) -> Iterator[Lent]:
        weight, bias, ticket = operations.cast_bias_weight(
            module, None, dtype, device, dtype, offloadable=True
        )
        stream, page, _ = ticket
        paged = page is not None and not isinstance(page, torch.Tensor)
        if hasattr(module, "_v") and not paged:
            self._count(module)
        if paged or stream is None:
            try:
                yield weight, bias
            finally:
                operations.uncast_bias_weight(module, weight, bias, ticket)
            return
        lent = weight.clone(), None if bias is None else bias.clone()
        operations.uncast_bias_weight(module, weight, bias, ticket)
        del weight, bias
        yield lent

    def _count(self, module: nn.Module) -> None:
        if module not in self._passing:
            self._passing.add(module)
            self.passing_bytes += sum(p.nbytes for p in module.parameters(recurse=False))


def _is_kept(module: nn.Module) -> bool:
    """Whether the host's own `forward` would not read the parameters as they lie."""
    if getattr(module, "weight", None) is None:
        return False
    functions = (getattr(module, f"{name}_function", ()) for name in ("weight", "bias"))
    return bool(getattr(module, "comfy_cast_weights", False)) or any(functions)
