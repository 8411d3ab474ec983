"""How do ranks that do the work on one clip together hand each other rows and numbers?

1. `Exchange` is all that a run asks for: rows from rank to rank, the same few numbers of every rank
   to every rank, and the word that all is well.
2. `GroupExchange` does it over a group of `torch.distributed`, which is the caller's: over gloo
   through host memory, over NCCL from device to device.
3. Ranks agree before each exchange. One that has failed says so there, and all end with its
   sentence; one that is gone is missed after a while. Nothing ever waits for good.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ParallelError, SettingsError

_LONGEST = 500
"""Bytes of a sentence that are passed on."""


_all_gather: Callable[..., Any] = dist.all_gather  # pyright: ignore
_batched: Callable[..., list[Any]] = dist.batch_isend_irecv  # pyright: ignore


Wait = Callable[[], None]


class Exchange(Protocol):
    """What ranks hand each other; every rank makes the same calls in the same order.

    All but the first two raise `ParallelError` where another rank has failed, or does not answer in
    time.
    """

    def rank(self) -> int:
        """Its own number, from 0 on."""
        ...

    def size(self) -> int:
        """How many ranks there are."""
        ...

    def staged(self, x: Tensor) -> Tensor:
        """x in one piece, where it can be sent from."""
        ...

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> Wait:
        """Start to send staged tensors, by the rank that they go to, and to fill others of the same
        sizes, by the rank that they come from. What is given waits until all have arrived.
        """
        ...

    def gather(self, own: Tensor) -> Sequence[Tensor]:
        """A small staged tensor of every rank, by rank; all of one size."""
        ...

    def agree(self) -> None:
        """Go on once every rank has come as far."""
        ...

    def fail(self, sentence: str) -> None:
        """Let all others end with `sentence`; in place of `agree`."""
        ...


class GroupExchange:
    """Over a group of `torch.distributed`.

    device: what is computed on. timeout_s: how long another rank may take for a step.
    """

    def __init__(self, group: Any, device: torch.device, timeout_s: float) -> None:
        self._group, self._timeout = group, timedelta(seconds=timeout_s)
        through_host = device.type == "cpu" or dist.get_backend(group) == "gloo"
        self._device = torch.device("cpu") if through_host else device

    def rank(self) -> int:
        """See `Exchange`."""
        return dist.get_rank(self._group)

    def size(self) -> int:
        """See `Exchange`."""
        return dist.get_world_size(self._group)

    def staged(self, x: Tensor) -> Tensor:
        """See `Exchange`."""
        return x.to(self._device).contiguous()

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> Wait:
        """See `Exchange`."""
        ways = [(dist.isend, to, x) for to, x in sorted(outgoing.items())]
        ways += [(dist.irecv, of, x) for of, x in sorted(incoming.items())]
        with self._in_time():
            started = _batched([self._way(*way) for way in ways]) if ways else []

        def wait() -> None:
            with self._in_time():
                for work in started:
                    self._wait(work)

        return wait

    def _way(self, way: Any, peer: int, x: Tensor) -> Any:
        line = x.flatten().view(torch.uint8)  # no backend knows every dtype
        return dist.P2POp(way, line, dist.get_global_rank(self._group, peer), self._group)

    def gather(self, own: Tensor) -> Sequence[Tensor]:
        """See `Exchange`."""
        found = [torch.empty_like(own) for _ in range(self.size())]
        with self._in_time():
            self._wait(_all_gather(found, own, group=self._group, async_op=True))
        return found

    def agree(self) -> None:
        """See `Exchange`."""
        self._say("")

    def fail(self, sentence: str) -> None:
        """See `Exchange`."""
        self._say(sentence or "no reason given")

    def _say(self, sentence: str) -> None:
        said = sentence.encode()[:_LONGEST]
        sizes = [int(x) for x in self.gather(torch.tensor([len(said)], device=self._device))]
        if not any(sizes):
            return
        line = torch.frombuffer(bytearray(said.ljust(_LONGEST)), dtype=torch.uint8)
        lines = self.gather(line.to(self._device))
        rank = next(rank for rank, size in enumerate(sizes) if size)
        heard = lines[rank][: sizes[rank]].cpu().numpy().tobytes().decode(errors="replace")
        if not said:
            raise ParallelError(f"rank {rank} failed, and so all end: {heard}")

    def _wait(self, work: Any) -> None:
        if self._device.type == "cpu":
            work.wait(self._timeout)
        else:  # the device waits; the group's own watch ends what takes too long
            work.wait()

    @contextmanager
    def _in_time(self) -> Generator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:
            seconds = f"{self._timeout.total_seconds():g}"
            raise ParallelError(
                f"rank {self.rank()} of {self.size()} lost another one: none may fail, or take"
                f" longer than {seconds} s for a step. Look at what the others say, or allow more"
                " by parallel_timeout_s."
            ) from error


def is_exchange(group: object) -> bool:
    """Whether it is an exchange already, as threads have."""
    return callable(getattr(group, "swap", None))


def exchange_for(group: object, device: torch.device, timeout_s: float) -> Exchange:
    """The exchange of a run over `group`; `SettingsError` for what is none."""
    if is_exchange(group):
        return cast("Exchange", group)
    if "torch.distributed" in sys.modules and isinstance(group, dist.ProcessGroup):
        return GroupExchange(group, device, timeout_s)
    raise SettingsError(
        "to run, parallel must be a group of torch.distributed, such as dist.group.WORLD; got"
        f" {group!r}. A number of ranks is for plans alone."
    )
