"""Are the weights that a processor packs for one chunk kept for the next?

They take as much as the network's own. So they are kept where chunks follow each other and a budget
has room for them beside all else; where none was given, within half of the memory that is free.
Elsewhere each step packs its weights anew in every chunk.
"""

from __future__ import annotations

from dataclasses import replace

from ..program.steps import Program
from ..settings import Placement
from .between import sizes_of
from .machine import Machine
from .plan import Plan
from .sizes import kernel_elements


def keeping(plan: Plan, machine: Machine) -> Plan:
    """The same plan, with room for packed weights from chunk to chunk where there is some."""
    sizes = sizes_of(plan.job, machine)
    if not sizes.packed or len(plan.chunks) == 1 or plan.placement is Placement.MMAP:
        return plan
    kept = _all_packed(plan.job.program, sizes.element_bytes)
    room, budget = machine.host_bytes, plan.settings.budget_bytes
    if budget is not None:
        room = budget if room is None else min(budget, room)
    elif room is not None:
        room //= 2
    if room is not None and plan.peak_bytes + kept > room:
        return plan
    rows = (replace(row, workspace_bytes=row.workspace_bytes + kept) for row in plan.rows)
    return replace(plan, rows=tuple(rows), kept_bytes=kept)


def _all_packed(program: Program, element_bytes: int) -> int:
    """Bytes of the packed weights of all steps."""
    return element_bytes * sum(map(kernel_elements, program.steps))
