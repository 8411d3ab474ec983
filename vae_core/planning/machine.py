"""What is there to run on: whose memory, how much of it, and how large should a tile be?"""

from __future__ import annotations

import psutil
import torch

from .planner import Machine

CPU_WORKSPACE_BYTES = 48 * 2**20
"""Tiles of about this size stay in a processor's last cache and are reused by the allocator."""

ACCELERATOR_WORKSPACE_BYTES = 256 * 2**20
"""Tiles of about this size keep a graphics card busy; larger ones gain nothing."""


def machine_for(device: torch.device) -> Machine:
    """The machine that `device` belongs to, with the host memory that is free right now."""
    free_bytes = int(psutil.virtual_memory().available)
    if device.type == "cpu":
        return Machine(False, CPU_WORKSPACE_BYTES, free_bytes)
    return Machine(True, ACCELERATOR_WORKSPACE_BYTES, free_bytes)
