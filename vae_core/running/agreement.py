"""Do all ranks of a run mean the same clip, cut into the same chunks?

Each makes its own plan: devices differ, and so may tiles and places, which change no result.
Chunks have to be the same, and where they may be shorter, the shortest that any rank wants are
taken. Everything else that a result depends on is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from zlib import crc32

import torch

from ..errors import ParallelError, SettingsError
from ..planning.plan import Plan
from ..settings import Settings
from .exchange import Exchange, exchange_for

Planner = Callable[[Settings], Plan]


def agreed(make: Planner, settings: Settings, device: torch.device) -> Plan:
    """The plan that `make` gives, for a run on `device`, and such that all ranks agree on it.

    Raises `SettingsError` on all of them where they were asked for different things.
    """
    exchange = exchange_for(settings.parallel, device, settings.parallel_timeout_s)
    try:
        plan = make(settings)
    except Exception as error:
        with suppress(ParallelError):
            exchange.fail(f"{type(error).__name__}: {error}")
        raise
    exchange.agree()
    return _agreed(plan, exchange, make)


def _agreed(plan: Plan, exchange: Exchange, make: Planner) -> Plan:
    while True:
        chunk = plan.settings.chunk_frames
        own = torch.tensor([chunk, *_meant(plan)], dtype=torch.int64)
        gathered = exchange.gather(exchange.staged(own))
        every = [[int(number) for number in numbers] for numbers in gathered]
        different = [rank for rank, other in enumerate(every) if other[1:] != every[0][1:]]
        if different:
            raise SettingsError(
                f"all ranks must be given the same clip, network and settings; rank"
                f" {different[0]} was given others than rank 0. Look at what each of them calls."
            )
        shortest = min(other[0] for other in every)
        if all(other[0] == shortest for other in every):
            return plan
        if chunk != shortest:
            plan = make(replace(plan.settings, chunk_frames=shortest))


def _meant(plan: Plan) -> list[int]:
    """Numbers that are the same on all ranks whose results belong together."""
    job, settings = plan.job, plan.settings
    words = (settings.norm_scope, settings.layout, settings.parallel_result, job.program)
    size = (job.batch, job.source.t, job.source.h, job.source.w, job.element_bytes)
    return [*size, crc32(repr(words).encode())]
