"""How do several processes train one network?

Each steps by itself on crops of its own, of the same shapes in the same order, and every few steps
all go on from the mean of their weights.  Alone, a process does none of this.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn


def run(count: int, work: Callable[[], None]) -> None:
    """Do the work in ``count`` processes at once."""
    if count == 1:
        work()
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        multiprocessing.start_processes(
            enter, args=(count, meeting, work), nprocs=count, start_method="fork"
        )


def enter(rank: int, count: int, meeting: str, work: Callable[[], None]) -> None:
    """Join the others and do the work."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    work()
    distributed.destroy_process_group()


def rank() -> int:
    """Return this process's number."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def agree(value: float) -> float:
    """Return the first process's value in every process."""
    if not distributed.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return float(shared)


def share(module: nn.Module) -> None:
    """Give every process the first one's weights."""
    if distributed.is_initialized():
        for value in module.parameters():
            distributed.broadcast(value.detach(), 0)


def average(module: nn.Module) -> None:
    """Replace every weight by its mean over all processes."""
    if not distributed.is_initialized():
        return
    held = list(module.parameters())
    flat = torch.cat([value.detach().flatten() for value in held])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    with torch.no_grad():
        for value, part in zip(held, flat.split([v.numel() for v in held]), strict=True):
            value.copy_(part.view_as(value))
