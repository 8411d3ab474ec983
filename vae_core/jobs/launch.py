"""Is this process one of several that torchrun has started to do one command together?

1. A launcher says so in the environment; the group is made here, over NCCL where there is a card
   for each process, and over gloo otherwise, and goes with the command.
2. Rank 0 writes files and speaks; the others only work, and complain where they fail.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from functools import wraps

import torch
import torch.distributed as dist

from ..errors import SettingsError
from ..settings import Settings
from .options import device_name


def shared(run: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """A command that several processes may do together."""

    @wraps(run)
    def command(args: Namespace) -> None:
        with _joined(args):
            run(args)

    return command


def alone(run: Callable[[Namespace], None]) -> Callable[[Namespace], None]:
    """A command that one process does. Raises `SettingsError` where several have been started."""

    @wraps(run)
    def command(args: Namespace) -> None:
        if _is_launched():
            raise SettingsError(
                "encode-dataset is for one process: several would write the same files. Start it"
                " without torchrun; --ray shares a folder clip by clip."
            )
        run(args)

    return command


def _is_launched() -> bool:
    """Whether a launcher has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def writes(args: Namespace) -> bool:
    """Whether this process writes what comes of a command."""
    group = getattr(args, "group", None)
    return group is None or dist.get_rank(group) == 0


@contextmanager
def _joined(args: Namespace) -> Generator[None]:
    args.group = None
    if not _is_launched():
        yield
        return
    args.device = _device(args.device)
    backend = "nccl" if args.device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=_timeout_s(args)))
    try:
        args.group = dist.group.WORLD
        with _quiet(args):
            yield
    finally:
        dist.destroy_process_group()


def _timeout_s(args: Namespace) -> float:
    return Settings(parallel_timeout_s=args.rank_timeout).parallel_timeout_s


@contextmanager
def _quiet(args: Namespace) -> Generator[None]:
    """A block in which only the process that writes speaks."""
    if writes(args):
        yield
        return
    args.quiet = True
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def _device(name: str) -> str:
    """The device of this process: of several cards its own."""
    found, own = device_name(name), int(os.environ.get("LOCAL_RANK", "0"))
    if found != "cuda" or own >= torch.cuda.device_count():
        return "cpu" if found == "cuda" and name == "auto" else found
    torch.cuda.set_device(own)
    return f"cuda:{own}"
