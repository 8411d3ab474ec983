"""What is there to run on: whose memory, how much of it, and how large should a tile be?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from .rates import Rates
from .routes import Table
from .workspaces import NO_WORKSPACES, Workspaces

if TYPE_CHECKING:
    import torch


CPU_WORKSPACE_BYTES = 48 * 2**20
"""Tiles of about this size stay in a processor's last cache and are reused by the allocator."""

ACCELERATOR_WORKSPACE_BYTES = 256 * 2**20
"""Tiles of about this size keep a graphics card busy; larger ones gain nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the planner needs to know of where a plan will run.

    apart: whether the device's memory is not the host's.
    workspace_bytes: what a tile may take where no budget asks for less; tiles of a size that stays
        in a processor's cache, or fills a graphics card.
    host_bytes: free host memory; stores that need more go to disk. None: unknown.
    shared: whether the device is an accelerator in spite of sharing the host's memory.
    workspaces: what its libraries allocate beside convolutions.
    title: of the device, for a person; nothing for a processor, and for what plays a device.
    table: what a probe found there. refused: why it is not the device that was asked for.
    rates: how fast it was measured to be; None where nobody has.
    """

    apart: bool
    workspace_bytes: int
    host_bytes: int | None = None
    shared: bool = False
    workspaces: Workspaces = NO_WORKSPACES
    title: str = ""
    table: Table | None = None
    refused: str = ""
    rates: Rates | None = None

    @property
    def accelerated(self) -> bool:
        """Whether there is something beside a processor."""
        return self.apart or self.shared


def machine_for(device: torch.device, integrated: bool = False) -> Machine:
    """The machine that `device` belongs to, with the host memory that is free right now.

    integrated: whether it is a card whose memory is the host's.
    """
    free_bytes = int(psutil.virtual_memory().available)
    if device.type == "cpu":
        return Machine(False, CPU_WORKSPACE_BYTES, free_bytes)
    shared = integrated or device.type == "mps"
    workspaces = NO_WORKSPACES if device.type == "meta" else Workspaces()
    return Machine(not shared, ACCELERATOR_WORKSPACE_BYTES, free_bytes, shared, workspaces)
