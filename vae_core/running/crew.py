"""How do several devices of one process do the work on a clip together?

1. Each has a plan of its own, for chunks of one length (`plan_together`), and does a rank's share
   (see `shared`): the VAE's own device in the caller's thread, every other one in a thread that
   lives as long as a chunk takes.
2. Each writes its own rows of the result to where the caller wants all of them.
3. What fails on one ends all of them, and is what the caller is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Thread

import torch
from torch import Tensor, nn

from ..errors import ParallelError, SettingsError
from ..geometry.grid import Chunk
from ..planning.plan import Job, Plan
from ..settings import Settings
from . import devices
from .autocast import no_autocast
from .execute import Execution
from .machines import Network, plan_on, weights_for
from .meeting import Meeting
from .shared import Report, SharedExecution
from .weights import Lender, Weights

_Work = Callable[[Execution], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A network as one of the devices has it; see `machines.Network`."""

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    lender: Lender | None = None


def plan_together(network: Network, job: Job, settings: Settings, probing: bool) -> Plan:
    """The plan for a network's own device, with those of the others that `settings` name.

    probing: see `VideoVAE.plan_encode`. Raises `SettingsError` for a device that there is not, or
    where the network's own is none of them, and as `make_plan` does.
    """
    members = members_of(network, settings)
    plans = [plan_on(member, job, settings, probing) for member in members]
    while len({plan.settings.chunk_frames for plan in plans}) > 1:
        shortest = min(plan.settings.chunk_frames for plan in plans)
        asked = replace(settings, chunk_frames=shortest)
        plans = [plan_on(member, job, asked, probing) for member in members]
    return replace(plans[0], others=tuple(plans[1:]))


def members_of(network: Network, settings: Settings) -> tuple[Member, ...]:
    """A network on all devices that do the work, its own first.

    Raises `SettingsError` for a device that there is not, or where its own is none of them.
    """
    named = [_found(name) for name in settings.devices]
    own = devices.numbered(network.device)
    if own not in named:
        raise SettingsError(
            "devices that share a run must have the VAE's own among them, which is"
            f" {network.device}; got {', '.join(settings.devices)}. Add it."
        )
    named.remove(own)
    module, dtype = network.module, network.dtype
    others = (Member(module, dtype, device) for device in named)
    return (Member(module, dtype, network.device, network.lender), *others)


def _found(name: str) -> torch.device:
    """The device of that name; `SettingsError` where this process has none."""
    try:
        device = devices.numbered(torch.device(name))
    except RuntimeError:
        device = None
    if device is None or not devices.is_there(device):
        known = ", ".join(map(str, devices.all_there()))
        raise SettingsError(
            f"devices that share a run must be there; got {name!r}, and this process has {known}."
            " Name some of these, or none where it has one alone."
        )
    return device


class Crew:
    """All devices' shares of a run; it is used as an `Execution` is."""

    def __init__(self, weights: Weights, plan: Plan, report: Report | None) -> None:
        settings, own = plan.settings, weights
        meeting = Meeting(settings.ranks, settings.parallel_timeout_s)
        members = members_of(Member(own.module, own.dtype, own.device, own.lender), settings)
        self._fail = meeting.fail
        self._executions: list[_Share] = []
        for member, part, seat in zip(members, (plan, *plan.others), meeting.seats(), strict=True):
            mine = weights_for(member, part) if self._executions else own
            told = None if self._executions else report
            self._executions.append(_Share(mine, part, told, seat))

    def close(self) -> None:
        """See `Execution.close`."""
        for execution in self._executions:
            execution.close()

    def run(self, chunk: Chunk, source: Tensor, sink: Tensor, *, last: bool) -> None:
        """See `Execution.run`."""
        self._on_all(lambda one: one.run(chunk, source, sink, last=last))

    def gather(self, chunk: Chunk, source: Tensor, *, last: bool) -> None:
        """See `Execution.gather`."""
        self._on_all(lambda one: one.gather(chunk, source, last=last))

    def _on_all(self, work: _Work) -> None:
        """Let all devices do some work; raises what went wrong on the first that failed."""
        own, *others = self._executions
        failed: list[BaseException] = []
        threads = [Thread(target=_tried, args=(work, one, failed), daemon=True) for one in others]
        with no_autocast(own.device), devices.unsearched(own.device):
            try:
                for thread in threads:
                    thread.start()
                work(own)
            except BaseException as error:
                failed.append(error)
                self._fail(0, f"{type(error).__name__}: {error}")
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
        causes = [error for error in failed if not isinstance(error, ParallelError)]
        for error in causes or failed:
            raise error


class _Share(SharedExecution):
    """One device's share; its rows of the result are where they belong when they are made."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._device

    def _compare(self, source: Tensor, last: bool) -> None:
        """It is the caller's, and so the same."""

    def _deliver(self, band: Tensor, sink: Tensor) -> None:
        """Nothing is left to be done but to wait for what writes them."""
        devices.synchronise(self._device)


def _tried(work: _Work, execution: _Share, failed: list[BaseException]) -> None:
    """What a thread does: its device's share, and `failed` is told where that went wrong."""
    try:
        with devices.current(execution.device):
            work(execution)
    except BaseException as error:
        failed.append(error)
