"""What does a plan say of the device that it is for, and how much of it is for libraries alone?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .classes import classes_of
from .kinds import with_sizes
from .machine import Machine
from .memory import Memory
from .places import Kind, Way
from .routes import Libraries, counted_routes
from .workspaces import NO_WORKSPACES


def libraries_of(
    machine: Machine, memories: tuple[Memory, ...], ways: Mapping[Kind, Way]
) -> Libraries | None:
    """The words of a plan that goes these ways; None where the device has no name."""
    if not machine.title:
        return None
    if machine.refused or machine.table is None:
        return Libraries(machine.title, refused=machine.refused)
    routes = counted_routes(machine.table, classes_of(memories[0].program))
    allowance = max(_allowance(memory, ways[memory.kind]) for memory in memories)
    return Libraries(machine.title, routes, allowance, raised=machine.table.raised)


def _allowance(memory: Memory, way: Way) -> int:
    """The most that libraries add to what a tile takes."""
    bare = with_sizes(memory, replace(memory.sizes, workspaces=NO_WORKSPACES))
    both = enumerate(way.tiles)
    return max(memory.tile_bytes(*tile) - bare.tile_bytes(*tile) for tile in both)
