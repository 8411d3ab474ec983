"""Several ranks in one process: a thread for each, as the engine itself has them for devices."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import torch

from vae_core.running.meeting import Meeting, Seat
from vae_core.running.residence import Residence


def on_ranks(count: int, work: Callable[[Any], Any], timeout_s: float = 60.0) -> list[Any]:
    """What `work` gives on each rank, called with its seat; an exception where it raised one."""
    return seated(Meeting(count, timeout_s).seats(), work)


def seated(seats: tuple[Any, ...], work: Callable[[Any], Any]) -> list[Any]:
    """The same for seats that a test has made."""
    found: list[Any] = [None] * len(seats)

    def run(rank: int, seat: Any) -> None:
        try:
            found[rank] = work(seat)
        except Exception as error:
            found[rank] = error

    threads = [Thread(target=run, args=pair) for pair in enumerate(seats)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def results(count: int, work: Callable[[Any], torch.Tensor]) -> list[torch.Tensor]:
    """As `on_ranks`, where nothing may go wrong."""
    found = on_ranks(count, work)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def poison(put: Callable[[Any, str, Any], object]) -> None:
    """Let memory of stores and caches be NaN until it has been written, from now on.

    put: `setattr`, or one that is taken back.
    """
    new_cache, new_store = Residence.new_cache, Residence.new_store

    def poisoned_store(self: Any, store: int, at: Any, *, packs: bool) -> Any:
        made = new_store(self, store, at, packs=packs)
        inside = self._program.stores[store].inside
        return made if inside is not None else made.fill_(torch.nan)

    def poisoned_cache(self: Any, *args: Any) -> Any:
        return new_cache(self, *args).fill_(torch.nan)

    put(Residence, "new_store", poisoned_store)
    put(Residence, "new_cache", poisoned_cache)


class Counted(Seat):
    """A seat that counts the bytes of rows and of statistics that it sends."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        super().__init__(meeting, rank)
        self.rows_bytes = self.statistics_bytes = 0

    def swap(self, outgoing: Any, incoming: Any) -> Any:
        self.rows_bytes += sum(x.nbytes for x in outgoing.values())
        return super().swap(outgoing, incoming)

    def gather(self, own: torch.Tensor) -> Any:
        if own.is_floating_point():
            self.statistics_bytes += own.nbytes * (self.size() - 1)
        return super().gather(own)
