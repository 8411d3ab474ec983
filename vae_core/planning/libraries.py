"""What does a plan say of the device that it is for, and how much of it is for libraries alone?"""

from __future__ import annotations

from dataclasses import replace

from ..geometry.region import Extent
from .classes import classes_of
from .machine import Machine
from .memory import Memory
from .routes import Libraries, counted_routes
from .workspaces import NO_WORKSPACES


def libraries_of(
    machine: Machine, memories: tuple[Memory, ...], largest: tuple[Extent, ...]
) -> Libraries | None:
    """The words of a plan whose steps have tiles of at most `largest`; None where the device has no
    name.
    """
    if not machine.title:
        return None
    if machine.refused or machine.table is None:
        return Libraries(machine.title, refused=machine.refused)
    routes = counted_routes(machine.table, classes_of(memories[0].program))
    allowance = max(_allowance(memory, largest) for memory in memories)
    return Libraries(machine.title, routes, allowance, raised=machine.table.raised)


def _allowance(memory: Memory, largest: tuple[Extent, ...]) -> int:
    """The most that libraries add to what a tile takes."""
    bare = replace(memory, sizes=replace(memory.sizes, workspaces=NO_WORKSPACES))
    tiles = (
        (step, memory.largest_tile(step, tile))
        for step, tile in zip(memory.program.steps, largest, strict=True)
    )
    return max(memory.tile_bytes(*tile) - bare.tile_bytes(*tile) for tile in tiles)
