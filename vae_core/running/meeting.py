"""How do threads of one process hand each other rows and numbers, one thread a device?

A `Meeting` is where they do: whatever one sends lies there until the other takes it. Each thread
has its own `Seat`, which is an `Exchange`. Tensors go from device to device; nothing is written to
once it has been sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from threading import Condition

import torch
from torch import Tensor

from ..errors import ParallelError
from . import devices
from .exchange import Wait


class Meeting:
    """What `count` threads share. timeout_s: how long one waits for another."""

    def __init__(self, count: int, timeout_s: float) -> None:
        self.count, self._timeout_s = count, timeout_s
        self._changed = Condition()
        self._sent: dict[tuple[int, int], deque[Tensor]] = {}
        self._failed: tuple[int, str] | None = None

    def seats(self) -> tuple[Seat, ...]:
        """One for each thread."""
        return tuple(Seat(self, rank) for rank in range(self.count))

    def send(self, of: int, to: int, x: Tensor) -> None:
        """Let x lie there."""
        with self._changed:
            self._sent.setdefault((of, to), deque()).append(x)
            self._changed.notify_all()

    def take(self, of: int, to: int) -> Tensor:
        """What was sent, in the order in which it was."""
        with self._changed:
            come = self._changed.wait_for(
                lambda: self._failed or self._sent.get((of, to)), self._timeout_s
            )
            if self._failed and self._failed[0] != to:
                rank, sentence = self._failed
                raise ParallelError(f"rank {rank} failed, and so all end: {sentence}")
            if not come:
                raise ParallelError(
                    f"rank {to} of {self.count} waited for rank {of} more than"
                    f" {self._timeout_s:g} s. Allow more by parallel_timeout_s."
                )
            return self._sent[of, to].popleft()

    def fail(self, rank: int, sentence: str) -> None:
        """Let all who wait end with a sentence; the first one counts."""
        with self._changed:
            self._failed = self._failed or (rank, sentence)
            self._changed.notify_all()


class Seat:
    """One thread's `Exchange`; see there."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self._rank = meeting, rank

    def rank(self) -> int:
        """See `Exchange`."""
        return self._rank

    def size(self) -> int:
        """See `Exchange`."""
        return self._meeting.count

    def staged(self, x: Tensor) -> Tensor:
        """See `Exchange`."""
        copied = x.clone(memory_format=torch.contiguous_format)
        devices.synchronise(x.device)
        return copied

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> Wait:
        """See `Exchange`."""
        for to, x in outgoing.items():
            self._meeting.send(self._rank, to, x)

        def wait() -> None:
            for of, room in incoming.items():
                room.copy_(self._meeting.take(of, self._rank))

        return wait

    def gather(self, own: Tensor) -> Sequence[Tensor]:
        """See `Exchange`."""
        others = [rank for rank in range(self.size()) if rank != self._rank]
        for to in others:
            self._meeting.send(self._rank, to, own)
        found = {of: self._meeting.take(of, self._rank).to(own.device) for of in others}
        found[self._rank] = own
        return [found[rank] for rank in range(self.size())]

    def agree(self) -> None:
        """See `Exchange`."""
        self.gather(torch.empty(0))

    def fail(self, sentence: str) -> None:
        """See `Exchange`."""
        self._meeting.fail(self._rank, sentence)
