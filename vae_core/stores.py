"""Where do activations live, and how is one made there?

A store lives on the device that computes, in host memory, or in a temporary file that is mapped
into memory. The file has no name that could be left behind: the operating system frees it when the
process ends, however it ends.

Its memory is laid out as the computing device likes it, wherever it lives: see `memory_format`.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import tempfile
from math import prod

import torch
from torch import Tensor

from .errors import BudgetError
from .plan import Plan, size_text
from .settings import Place, Placement

_LOG = logging.getLogger("vae_core")


def reserve(plan: Plan) -> None:
    """Say that a plan will use a temporary file, and refuse it where the disk has no room.

    Raises `BudgetError` with both numbers.
    """
    if plan.placement is not Placement.MMAP:
        return
    folder, needed = tempfile.gettempdir(), size_text(plan.far_bytes)
    free_bytes = shutil.disk_usage(folder).free
    if plan.far_bytes > free_bytes:
        raise BudgetError(
            f"a temporary file of {needed} is needed in {folder}, which has"
            f" {size_text(free_bytes)} free. Free some, or name another folder in TMPDIR.",
            projected_bytes=plan.far_bytes,
            budget_bytes=free_bytes,
            smallest_bytes=plan.far_bytes,
            worst_path=plan.worst.path,
        )
    _LOG.warning("activations of %s go to a temporary file in %s", needed, folder)


def memory_format(device: torch.device) -> torch.memory_format:
    """How tensors [b, c, t, h, w] lie in memory for computing on `device`.

    Channels last on a processor: convolutions are as quick, and in all else the innermost runs are
    long and need no more than a vector of the channels' own scales. Contiguous elsewhere.
    """
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def allocate(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, place: Place
) -> Tensor:
    """An unwritten tensor of `shape` [b, c, t, h, w] in `place`, to be computed with on `device`;
    its memory goes with its last reference.
    """
    layout = memory_format(device)
    if place is Place.DISK:
        return _mapped(shape, dtype, layout)
    where = device if place is Place.DEVICE else "cpu"
    return torch.empty(shape, dtype=dtype, device=where, memory_format=layout)


def _mapped(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """A tensor in a nameless temporary file, whose blocks are reserved at once where that can
    be.
    """
    size = prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile(prefix="exact_video_vae_") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        memory = mmap.mmap(file.fileno(), size)
    flat = torch.frombuffer(memory, dtype=dtype)
    if layout is torch.contiguous_format:
        return flat.view(shape)
    b, c, t, h, w = shape
    return flat.view(b, t, h, w, c).permute(0, 4, 1, 2, 3)
