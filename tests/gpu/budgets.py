"""Part B: does a run keep within what was projected and allowed, and leave nothing behind?"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import torch

from vae_core import BudgetError, Settings, from_module
from vae_core.errors import DeviceMemoryError
from vae_core.planning.classes import attends
from vae_core.planning.memory import SLACK_BYTES
from vae_core.planning.plan import Plan
from vae_core.planning.workspaces import PRODUCTS

from .exactness import FAMILIES, KINDS, _apart, _each, _name
from .rigs import Bench, Rig, plan_of, run_of
from .sheet import Row, at_most, needs_card

MIB = 2**20


def _fits(check: str, case: str, measured: int, plan: Plan) -> Row:
    """Measured is no more than projected, and no less than 0.8 of what is counted one by one."""
    projected, program = plan.peak_bytes, plan.job.program
    ratio = measured / projected
    near = 0.8 * (projected - SLACK_BYTES - attends(program) * PRODUCTS.base_bytes)
    return Row(
        check,
        case,
        round(ratio, 4),
        "0.8 to 1 of projected",
        bool(near <= measured <= projected),
        f"{measured / MIB:.1f} of {projected / MIB:.1f} MiB",
    )


def peaks(bench: Bench) -> Iterator[Row]:
    """The peak of a run is what was projected, or a little less."""
    rig = bench.shapes
    for (family, kind), clip in itertools.product(_each(), rig.large):
        vae = rig.vae(family, torch.bfloat16)
        x = rig.source(vae, kind, clip)
        for placement in ("device", "caches-on-host", "host"):
            settings = Settings(placement=placement)
            plan = plan_of(vae, kind, x, settings)
            found = rig.peak(run_of(vae, kind, x, settings))
            case = _name(family, kind, "x".join(map(str, clip)), placement)
            yield _fits("peak", case, found.used, plan)
            if found.reserved is None:
                yield needs_card("reserved, of projected", case, "<= 1.25")
            else:
                share = found.reserved / plan.peak_bytes
                yield at_most("reserved, of projected", case, share, 1.25)


def far_weights(bench: Bench) -> Iterator[Row]:
    """The same where weights are in host memory, and copied for each step."""
    rig = bench.shapes
    for family, kind in _each():
        module = rig.host_module(family, torch.bfloat16)
        vae = from_module(module, torch.bfloat16, rig.device)
        x = rig.source(vae, kind, rig.large[0])
        plan = plan_of(vae, kind, x, Settings(placement="device"))
        found = rig.peak(run_of(vae, kind, x, Settings(placement="device")))
        yield _fits("peak, weights far away", _name(family, kind), found.used, plan)


def budgets(bench: Bench) -> Iterator[Row]:
    """Every budget that a plan takes is kept, and more of it is never slower."""
    rig, allowed_slower = bench.shapes, 1.1
    for family, kind in _each():
        vae = rig.vae(family, torch.bfloat16)
        x = rig.source(vae, kind, rig.large[0])
        smallest = _smallest_budget(vae, kind, x)
        quickest = float("inf")
        for times in (1, 1.2, 1.5, 2, 3, 5) if bench.is_card else (2, 5):
            settings = Settings(budget_bytes=int(smallest * times))
            run = run_of(vae, kind, x, settings)
            case = _name(family, kind, f"{times} x the smallest")
            found = rig.peak(run)
            yield at_most("budget kept, of it", case, found.used / settings.budget_bytes, 1.0)
            check, limit = "slower than with less", f"<= {allowed_slower}"
            if not bench.is_card:
                yield needs_card(check, case, limit)
                continue
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            yield at_most(check, case, seconds / min(quickest, seconds), allowed_slower)
            quickest = min(quickest, seconds)


def _smallest_budget(vae: Any, kind: str, x: torch.Tensor) -> int:
    plan_of(vae, kind, x, Settings())
    try:
        plan_of(vae, kind, x, Settings(budget_bytes=1))
    except BudgetError as error:
        return error.smallest_bytes
    raise AssertionError("a budget of one byte was taken")


@contextmanager
def _only(bytes_: int) -> Iterator[None]:
    """The card has so many bytes for this process."""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(bytes_ / total, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def shortages(bench: Bench) -> Iterator[Row]:
    """Where there is less memory than projected the run ends right, or with a sentence."""
    for family in FAMILIES:
        for share in (0.9, 0.7, 0.5, 0.3, 0.01):
            case, check = _name(family, f"{share} of the peak"), "real shortage, of range"
            if not bench.is_card:
                yield needs_card(check, case, "<= 0.003, or a sentence")
                continue
            yield _short_of(bench.values, family, share, Row(check, case, "", "", None))


def _short_of(rig: Rig, family: str, share: float, row: Row) -> Row:
    vae = rig.vae(family, torch.bfloat16)
    x = rig.source(vae, "decode", (17, 240, 368))
    plan = plan_of(vae, "decode", x, Settings(placement="device"))
    run = run_of(vae, "decode", x, Settings(placement="device"))
    wanted = run()
    try:
        with _only(rig.held_bytes() + int(share * plan.peak_bytes)):
            found = run()
    except DeviceMemoryError as error:
        return Row(row.check, row.case, str(error)[:120], "a sentence", share < 0.3)
    return at_most(row.check, row.case, _apart(found, wanted), 2**-6)


def leaks(bench: Bench) -> Iterator[Row]:
    """Twenty runs of different sizes leave nothing behind."""
    rig, chance = bench.shapes, random.Random(0)
    side = 16 if bench.is_card else 2
    for family in FAMILIES:
        vae = rig.vae(family, torch.bfloat16)
        _random_run(rig, vae, chance, side)
        before, resident = rig.held_bytes(), psutil.Process().memory_info().rss
        reserved = torch.cuda.memory_reserved() if bench.is_card else 0
        for _ in range(20 if bench.is_card else 3):
            _random_run(rig, vae, chance, side)
        yield Row("left on the device", family, rig.held_bytes() - before, "0 bytes",
                  rig.held_bytes() == before)  # fmt: skip
        if bench.is_card:
            grown = (torch.cuda.memory_reserved() - reserved) / max(reserved, 1)
            yield at_most("reserved grows", family, grown, 0.1)
            more = (psutil.Process().memory_info().rss - resident) / MIB
            yield at_most("process grows, MiB", family, more, 100.0)
        else:
            yield needs_card("reserved grows", family, "<= 0.1")
            yield needs_card("process grows, MiB", family, "<= 100")


def _random_run(rig: Rig, vae: Any, chance: random.Random, side: int) -> None:
    frames = 4 * chance.randrange(1, 1 + min(side, 5)) + 1
    height, width = (16 * chance.randrange(2, 2 + side) for _ in range(2))
    kind, placement = chance.choice(KINDS), chance.choice(("device", "caches-on-host", "host"))
    x = rig.source(vae, kind, (frames, height, width))
    run_of(vae, kind, x, Settings(placement=placement, chunk_frames=chance.choice((4, 8))))()


class _Stop(BaseException):
    """What a person asks for."""


def interrupts(bench: Bench) -> Iterator[Row]:
    """A run that is stopped gives its memory back, and the next one is the same."""
    rig, chance = bench.values, random.Random(1)
    for family, placement in itertools.product(FAMILIES, ("device", "host")):
        vae = rig.vae(family, torch.float32)
        x = rig.source(vae, "decode", rig.small)
        settings = Settings(placement=placement, tile_px=48)
        wanted, case = run_of(vae, "decode", x, settings)(), _name(family, placement)
        before, left = rig.held_bytes(), [chance.randrange(2, 20)]

        def stop(_progress: object, left=left) -> None:
            left[0] -= 1
            if not left[0]:
                raise _Stop

        start = time.perf_counter()
        stopped = _is_stopped(vae, x, settings, stop)
        seconds = time.perf_counter() - start
        gc.collect()
        held = rig.held_bytes() - before
        good = stopped and held == 0
        yield Row("left by a stopped run", case, held, "0 bytes", good)
        same = torch.equal(run_of(vae, "decode", x, settings)(), wanted)
        yield Row("the run after it", case, same, "the same bits", same)
        if bench.is_card:
            yield at_most("seconds to stop", case, seconds, 5.0)


def _is_stopped(vae: Any, x: torch.Tensor, settings: Settings, stop: Any) -> bool:
    try:
        run_of(vae, "decode", x, replace(settings, on_progress=stop))()
    except _Stop:
        return True
    return False


CHECKS = {
    "peak": peaks,
    "peak, weights far away": far_weights,
    "budget kept": budgets,
    "real shortage": shortages,
    "left on the device": leaks,
    "stopped runs": interrupts,
}
