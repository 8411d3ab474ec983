"""Part C: is it as quick as it should be, beside diffusers on the same card?"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from traffic import Traffic

from vae_core import Settings
from vae_core.running.tile import TileRunner

from .exactness import _each, _name
from .rigs import Bench, Rig, plan_of, run_of
from .sheet import Row, at_most, needs_card

CLIP = (9, 128, 192)
"""Of which operations are counted: with several tiles for each step."""

FIGURES = {
    "of diffusers untiled": 0.9,
    "of diffusers untiled, channels last": 1.0,
    "of diffusers tiled": 0.6,
    "caches on the host, of the device": 1.3,
    "stores on the host, of the device": 4.0,
    "cold beside warm, seconds": 3.0,
}


def _seconds(run: Callable[[], Any], times: int = 3) -> list[float]:
    """Of a cold run, and of `times` more."""
    found: list[float] = []
    for _ in range(times + 1):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(stop) / 1000)
    return found


def times(bench: Bench) -> Iterator[Row]:
    """Medians of three after a cold run, beside diffusers in the same process."""
    for family, kind in _each():
        if not bench.is_card:
            for name, limit in FIGURES.items():
                yield needs_card("time", _name(family, kind, name), f"<= {limit}")
            continue
        yield from _times(bench.values, family, kind)


def _times(rig: Rig, family: str, kind: str) -> Iterator[Row]:
    vae, clip = rig.vae(family, torch.bfloat16), rig.large[0]
    x = rig.source(vae, kind, clip).to(rig.device)
    plan_of(vae, kind, x, Settings())  # a probe is no part of a cold run
    ours: dict[str, float] = {}
    for placement in ("device", "caches-on-host", "host"):
        cold, *warm = _seconds(run_of(vae, kind, x, Settings(placement=placement)))
        ours[placement] = statistics.median(warm)
        if placement == "device":
            yield _figure(family, kind, "cold beside warm, seconds", cold - ours[placement])
        yield Row("seconds", _name(family, kind, placement), ours[placement], "noted", True)
    for name, theirs in _peers(rig, family, kind, x):
        yield Row("seconds", _name(family, kind, "diffusers", name), theirs, "noted", True)
        yield _figure(family, kind, f"of diffusers {name}", ours["device"] / theirs)
    device = ours["device"]
    yield _figure(
        family, kind, "caches on the host, of the device", ours["caches-on-host"] / device
    )
    yield _figure(family, kind, "stores on the host, of the device", ours["host"] / device)


def _figure(family: str, kind: str, name: str, found: float) -> Row:
    return at_most("time", _name(family, kind, name), found, FIGURES[name])


def _peers(rig: Rig, family: str, kind: str, x: Tensor) -> Iterator[tuple[str, float]]:
    """Seconds of diffusers in its ways; one that has no memory for it is left out."""
    module = rig.module(family, torch.bfloat16)
    ways: list[tuple[str, Callable[[], Any]]] = [
        ("untiled", lambda: None),
        ("untiled, channels last", lambda: _lay_out(module, torch.channels_last_3d)),
        ("tiled", module.enable_tiling),
    ]
    run = module._encode if kind == "encode" else module._decode
    try:
        for name, prepare in ways:
            prepare()
            try:
                with torch.no_grad():
                    yield name, statistics.median(_seconds(lambda: run(x))[1:])
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
    finally:
        module.disable_tiling()
        _lay_out(module, torch.contiguous_format)


def _lay_out(module: Any, layout: torch.memory_format) -> None:
    """Let all kernels in three dimensions lie so."""
    for parameter in module.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _union(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same time without overlaps."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def _length(spans: list[tuple[float, float]]) -> float:
    return sum(stop - start for start, stop in spans)


def _common(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> float:
    both = _length(_union([*one, *other]))
    return _length(one) + _length(other) - both


def overlaps(bench: Bench) -> Iterator[Row]:
    """The card is busy, and copies run beside its computing."""
    for family in ("cogvideox", "wan"):
        if not bench.is_card:
            yield needs_card("card idle", family, "<= 0.1")
            yield needs_card("copies alone", family, "<= 0.2")
            continue
        computing, _ = _profiled(bench.values, family, "device")
        whole = computing[-1][1] - computing[0][0]
        yield at_most("card idle", family, 1 - _length(computing) / whole, 0.1)
        computing, copies = _profiled(bench.values, family, "host")
        alone = 1 - _common(computing, copies) / max(_length(copies), 1e-9)
        yield at_most("copies alone", family, alone, 0.2)


def _profiled(rig: Rig, family: str, placement: str) -> tuple[list[Any], list[Any]]:
    """When kernels ran, and when copies between host and card did, in microseconds."""
    vae = rig.vae(family, torch.bfloat16)
    x = rig.source(vae, "decode", (17, 480, 720)).to(rig.device)
    run = run_of(vae, "decode", x, Settings(placement=placement))
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    kernels: list[tuple[float, float]] = []
    copies: list[tuple[float, float]] = []
    for event in profile.events():
        if "cuda" not in str(event.device_type).lower():
            continue
        across = any(way in event.name for way in ("HtoD", "DtoH"))
        span = (event.time_range.start, event.time_range.end)
        (copies if across else kernels).append(span)
    return _union(kernels), _union(copies)


def operations(bench: Bench) -> Iterator[Row]:
    """A tile is few operations of the device, so that the processor keeps ahead of it."""
    rig = bench.shapes
    for family, kind in _each():
        vae = rig.vae(family, torch.bfloat16)
        x = rig.source(vae, kind, CLIP).to(rig.device)
        tiles, run_tile = [0], TileRunner.run

        def counted(*args: Any, run_tile=run_tile, tiles=tiles) -> None:
            tiles[0] += 1
            run_tile(*args)

        run = run_of(vae, kind, x, Settings(placement="device", tile_px=64))
        TileRunner.run = counted
        try:
            with Traffic(rig.device.type) as traffic:
                run()
        finally:
            TileRunner.run = run_tile
        case = _name(family, kind)
        yield at_most("operations a tile", case, traffic.operations / tiles[0], 24.0)


def clocks(bench: Bench) -> Iterator[Row]:
    """What the card's clocks were, for whoever compares figures."""
    if not bench.is_card:
        yield needs_card("clocks", "", "noted")
        return
    asked = "clocks.sm,clocks.mem,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        said = "nvidia-smi is not there"
    yield Row("clocks", asked, said, "noted", True)


CHECKS = {
    "operations a tile": operations,
    "time": times,
    "overlap": overlaps,
    "clocks": clocks,
}
