"""Which files does the host's own loader build, and what does it build of them?

Wan 2.1's and Qwen-Image's by the authors' names: the host knows their network and all that belongs
to it, so that what it builds is what other packs expect on a wire. Files by other names, or whose
weights the host would take only in part, are left to `vae_core.load`, which also says what is wrong
with them. CogVideoX is built here in every host, since older ones misread its file.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from . import host

WAN = "decoder.middle.0.residual.0.gamma"
"""A weight that tells this network by the authors' names."""

WAN_22 = "decoder.upsamples.0.upsamples.0.residual.2.weight"
"""A weight that 2.2 has beside it, whose network is another one."""


def core_vae(path: Path, dtype: torch.dtype | None) -> Any:
    """The VAE that the host makes of the file at `path`; None where it had better not."""
    if not host.running() or not path.is_file() or not _is_wan(_names_in(path)):
        return None
    return host.vae_of(host.weights_in(path), dtype)


def _is_wan(names: Collection[str]) -> bool:
    return WAN in names and WAN_22 not in names


def _names_in(path: Path) -> Collection[str]:
    """The names of the weights in a file; none where it cannot be read as a plain one."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return set(file.keys())
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return ()
    return set(found) if isinstance(found, dict) else ()
