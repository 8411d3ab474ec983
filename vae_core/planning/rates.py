"""How long will a plan take, from what it computes and what it moves?

Seconds are operations over a rate and bytes moved over another, one after the other: what runs
beside each other makes it less. `USUAL` is a guess for an ordinary card, by bytes of an element;
a probe that has measured a device says so in `Machine.rates`. All plans of a job have the same
operations, so that of them the one that moves least takes least, at any rates.
"""

from __future__ import annotations

from dataclasses import dataclass


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
