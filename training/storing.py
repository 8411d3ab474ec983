"""What do the families' networks share: a start in mirrored pairs, and safe writing.

The module knows no family.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


def mirror(before: nn.Module, after: nn.Module) -> None:
    """Make channels pairs of opposite sign: silu(u) - silu(-u) = u passes them on linearly."""
    before.weight[1::2] = -before.weight[0::2]
    after.weight[:, 1::2] = -after.weight[:, 0::2]


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary name, so that a reader never sees half a file."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    temporary.chmod(0o644)
    os.replace(temporary, path)


def store_half(state: dict[str, torch.Tensor], path: Path) -> None:
    """Store the weights as float16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {name: value.detach().to(torch.float16).contiguous() for name, value in state.items()}
    replace_file(path, lambda name: save_file(half, name, metadata={"format": "pt"}))
