"""Do all ranks of a run mean the same clip, cut into the same chunks?

Each makes its own plan: devices differ, and so may tiles and places, which change no result.
Chunks have to be the same, and where they may be shorter, the shortest that any rank wants are
taken. Everything else that a result depends on is compared: shapes and settings as they are,
weights and pixels by a few of their elements, which tell others from these.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from zlib import crc32

import torch
from torch import Tensor

from ..errors import ParallelError, SettingsError
from ..planning.plan import Plan
from ..settings import Settings
from .exchange import Exchange, exchange_for
from .machines import Network

Planner = Callable[[Settings], Plan]


def agreed(make: Planner, settings: Settings, network: Network) -> Plan:
    """The plan that `make` gives, for a run of a network, and such that all ranks agree on it.

    Raises `SettingsError` on all of them where they were asked for different things.
    """
    exchange = exchange_for(settings.parallel, network.device, settings.parallel_timeout_s)
    try:
        plan = make(settings)
        weights = _few_weights(network)
    except Exception as error:
        with suppress(ParallelError):
            exchange.fail(f"{type(error).__name__}: {error}")
        raise
    exchange.agree()
    return _agreed(plan, weights, exchange, make)


def _agreed(plan: Plan, weights: int, exchange: Exchange, make: Planner) -> Plan:
    while True:
        chunk = plan.settings.chunk_frames
        every = _of_all([chunk, *_meant(plan), weights], exchange)
        for rank, other in enumerate(every):
            for what, one, first in zip(_COMPARED, other[1:], every[0][1:], strict=True):
                if one != first:
                    numbers = f": {one}, not {first}" if what in _COUNTED else ""
                    raise SettingsError(
                        "all ranks must be given the same clip, network and settings; rank"
                        f" {rank} was given others than rank 0 ({what}{numbers}). Look at what"
                        " each of them calls."
                    )
        shortest = min(other[0] for other in every)
        if all(other[0] == shortest for other in every):
            return plan
        if chunk != shortest:
            plan = make(replace(plan.settings, chunk_frames=shortest))


_COUNTED = ("clips", "frames", "rows", "columns", "bytes of a number")
_COMPARED = (*_COUNTED, "architecture or settings", "weights")


def _meant(plan: Plan) -> list[int]:
    """Numbers that are the same on all ranks whose results belong together."""
    job, settings = plan.job, plan.settings
    words = (settings.norm_scope, settings.layout, settings.parallel_result, job.program)
    size = (job.batch, job.source.t, job.source.h, job.source.w, job.element_bytes)
    return [*size, crc32(repr(words).encode())]


def _of_all(numbers: list[int], exchange: Exchange) -> list[list[int]]:
    """Some whole numbers of every rank."""
    own = torch.tensor(numbers, dtype=torch.int64)
    return [[int(one) for one in other] for other in exchange.gather(exchange.staged(own))]


_FEW = 8


def _few_weights(network: Network) -> int:
    """A number that other weights do not give, of a few elements of each parameter."""
    found = 0
    for parameter in network.module.parameters():
        line = parameter.detach().flatten()
        found = crc32(_bytes_of(line[:: max(len(line) // _FEW, 1)].to(network.dtype)), found)
    return found


def _few_pixels(source: Tensor) -> int:
    """The same of a clip [b, c, t, h, w], of some rows and columns of every frame."""
    rows, columns = (max(side // _FEW, 1) for side in source.shape[3:])
    return crc32(_bytes_of(source[..., ::rows, ::columns]))


def _bytes_of(x: Tensor) -> bytes:
    return x.to("cpu", torch.float64).contiguous().numpy().tobytes()


def check_alike(source: Tensor, last: bool, exchange: Exchange) -> None:
    """Raises `SettingsError` on all ranks where not all have the same chunk of a clip, and the same
    one as its last.
    """
    every = _of_all([_few_pixels(source), *source.shape, last], exchange)
    rank = next((rank for rank, other in enumerate(every) if other != every[0]), None)
    if rank is not None:
        what = "a clip of another length" if every[rank][:-1] == every[0][:-1] else "other pixels"
        raise SettingsError(
            f"all ranks must be given the same clip; rank {rank} was given {what} than rank 0. Load"
            " or draw it once and send it to all, or draw it from the same seed."
        )
