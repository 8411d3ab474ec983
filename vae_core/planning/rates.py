"""How long will a plan take, from what it computes and what it moves?

Seconds are operations over a rate and bytes moved over another, one after the other: what runs
beside each other makes it less. Where a probe has timed the device's convolutions and copies, the
rate of operations is that of a program's own mixture of them, each with its share of the work.
`USUAL` is a guess for an ordinary card, by bytes of an element. All plans of a job have the same
operations, so that of them the one that moves least takes least, at any rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..program.parts import Attend
from ..program.steps import Program, Step
from .classes import mixed
from .routes import Table, best


@dataclass(frozen=True, slots=True)
class Rates:
    """operations: floating point operations of convolutions a second. moved_bytes: bytes a second
    between the device and the host.
    """

    operations: float
    moved_bytes: float

    def seconds(self, operations: int, moved_bytes: int) -> float:
        """How long so much takes."""
        return operations / self.operations + moved_bytes / self.moved_bytes


USUAL = {2: Rates(60e12, 12e9), 4: Rates(15e12, 12e9), 8: Rates(0.5e12, 12e9)}
"""By bytes of an element."""


def rates_of(table: Table, program: Program) -> Rates | None:
    """The rates of a device for a program; None where too little of it was timed."""
    work, seconds = 0.0, 0.0
    for step in program.steps:
        rate = _rate(table, step)
        if rate:
            share = _work(program, step)
            work, seconds = work + share, seconds + share / rate
    if not seconds or not table.copied:
        return None
    return Rates(work / seconds, table.copied)


def _rate(table: Table, step: Step) -> float:
    """Operations a second of a step's convolution by the route that it takes; 0: not known."""
    found = None if isinstance(step.mix, Attend) else best(table.found.get(mixed(step), ()))
    return found.operations / found.seconds if found and found.seconds else 0.0


def _work(program: Program, step: Step) -> float:
    """Operations of a step for each sample element, up to what all steps have in common."""
    spec = program.stores[step.dst]
    taps = step.mix.in_channels * step.mix.out_channels * prod(step.taps)
    return taps / (spec.px**2 * spec.frames)
