"""How long does a run take on this processor, against every peer in the same rounds?

1. All sides of a family share one network with random weights, float32, and one random clip.
2. Each side runs once to warm up; that run gives its error against the whole and its convolutions.
3. Then all sides, and the replays of the bare convolutions of ours, take turns, n times; medians
   count. ComfyUI core waits in a process of its own for its turn (`core.py`).
4. Peak resident memory comes from a process of its own for each side; core has none.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from networks import random_latents, random_video
from torch import Tensor

from vae_core import Settings, from_module
from vae_core.jobs.peak_memory import peak_bytes, start_peak
from vae_core.planning.plan import Plan

from . import core
from .clips import Clip, Grid
from .families import FAMILIES
from .recording import Recorder, Replay
from .sides import input_shape
from .waiting import Waiting

TESTS = Path(__file__).resolve().parents[1]

WHOLE, QUARTERS = "diffusers untiled", "diffusers 2x2"

DIFFUSERS_TILED = "diffusers tiled"

CORE, CORE_TILED = "ComfyUI core", "ComfyUI core tiled"

PEERS = {
    "cogvideox": (WHOLE, QUARTERS),
    "wan": (WHOLE, DIFFUSERS_TILED, CORE, CORE_TILED),
    "wan22": (WHOLE, CORE),
    "hunyuan": (WHOLE, CORE),
    "hunyuan15": (WHOLE, CORE),
    "seedvr2": (CORE,),
    "mochi": (CORE,),
    "ltx": (WHOLE, CORE),
}
"""Whom each family is compared with, the untiled reference first."""

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is timed: a family's network, doing one thing to a clip."""

    family: str
    kind: str
    clip: Clip

    def module(self) -> Any:
        """The network, with the same random weights each time."""
        return FAMILIES[self.family].made()

    def tensor(self) -> Tensor:
        """The video to encode, or latents to decode."""
        return clip_tensor(self.kind, self.clip, FAMILIES[self.family].grid)


def clip_tensor(kind: str, clip: Clip, grid: Grid) -> Tensor:
    """The video to encode, or latents to decode."""
    if kind == "encode":
        return random_video(clip.frames, clip.height, clip.width)
    _, channels, frames, height, width = clip.latent_shape(grid)
    return random_latents(frames, height, width, channels=channels)


def quarter_px(clip: Clip) -> tuple[int, int]:
    """The smallest tile of diffusers, in whole latents and overlaps, of which 2x2 cover a clip.

    Its tiles overlap by 1/6 of their height and 1/5 of their width.
    """
    return 48 * -(-clip.height // 80), 40 * -(-clip.width // 64)


def plan_of(side: str, subject: Subject, module: Any) -> Plan:
    """The plan that one of our sides follows."""
    vae, kind = from_module(module), subject.kind
    shape = input_shape(kind, subject.clip, subject.family)
    return (vae.plan_encode if kind == "encode" else vae.plan_decode)(shape, SETTINGS[side])


SETTINGS = {
    "ours, planner": Settings(),
    "ours, 64 px": Settings(tile_px=64),
    "ours, 32 frames": Settings(chunk_frames=32),
    "ours, as core": Settings(reference="core"),
}

OURS = {
    "cogvideox": ("ours, planner", "ours, 64 px"),
    "wan": ("ours, planner", "ours, 64 px"),
    "wan22": ("ours, planner",),
    "hunyuan": ("ours, planner",),
    "hunyuan15": ("ours, planner",),
    "seedvr2": ("ours, planner",),
    "mochi": ("ours, as core",),
    "ltx": ("ours, 32 frames",),
}
"""Of ours, those that are timed where nothing else is asked for. A band of LTX is eight frames, for
each of which all weights are read anew: where core has the whole clip at once, so have we. Mochi's
whole is core's, whose encoder has no mask over time.
"""


def runner(side: str, subject: Subject, module: Any) -> Callable[[Tensor], Tensor]:
    """What takes a clip through one side in this process."""
    kind = subject.kind
    if side in SETTINGS:
        vae, settings = from_module(module), SETTINGS[side]
        if kind == "encode":
            return lambda x: vae.encode(x, settings).moments
        return lambda x: vae.decode(x, settings)

    def peer(x: Tensor) -> Tensor:
        module.disable_tiling()
        if side == QUARTERS:
            module.enable_tiling(*quarter_px(subject.clip))
        elif side == DIFFUSERS_TILED:
            module.enable_tiling()
        made = module._encode(x) if kind == "encode" else module._decode(x)
        return getattr(made, "sample", made)

    return peer


@dataclass(slots=True)
class Timed:
    """One side on its way through the rounds.

    seconds, bare_seconds: of each round. error: the largest, over the range of the whole's result;
    None where the shape is another. resident_bytes: of a process that runs it once.
    """

    side: str
    run: Callable[[Tensor], Tensor]
    replay: Replay | None = None
    seconds: list[float] = field(default_factory=list)
    bare_seconds: list[float] = field(default_factory=list)
    error: float | None = None
    resident_bytes: int | None = None


def _seconds(timed: Timed, x: Tensor) -> float:
    """Of one run; one in another process says its own, without what it takes to hand over."""
    if isinstance(timed.run, Waiting):
        return timed.run.seconds(x)
    return _seconds_of(lambda: timed.run(x))


def _seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@torch.inference_mode()
def _warm_up(timed: Timed, x: Tensor) -> Tensor:
    if timed.side not in SETTINGS:
        return timed.run(x)
    with Recorder() as recorder:
        result = timed.run(x)
    timed.replay = Replay(recorder.calls, x.dtype)
    return result


def _error(result: Tensor, whole: Tensor, clamped: bool) -> float | None:
    """The largest, over the range of `whole`; None between different shapes.

    clamped: whether the peer clamps what it decodes, as we then do here. Where one result is means
    alone, the other's variances are left out.
    """
    if clamped:
        result, whole = result.clamp(-1, 1), whole.clamp(-1, 1)
    channels = min(result.shape[1], whole.shape[1])
    if {result.shape[1], whole.shape[1]} == {channels, 2 * channels}:
        result, whole = result[:, :channels], whole[:, :channels]
    if result.shape != whole.shape:
        return None
    return float((result - whole).abs().max() / (whole.max() - whole.min()))


@torch.inference_mode()
def _round(sides: list[Timed], x: Tensor) -> None:
    for timed in sides:
        timed.seconds.append(_seconds(timed, x))
    for timed in sides:
        if timed.replay is not None:
            timed.bare_seconds.append(_seconds_of(timed.replay.run))


def _runs(names: Iterable[str], subject: Subject, module: Any, stack: ExitStack) -> list[Timed]:
    """Every side, ready; core's processes end with `stack`."""
    sides: list[Timed] = []
    for side in names:
        if side in (CORE, CORE_TILED):
            task = core.Task(subject.family, subject.kind, side == CORE_TILED)
            run = stack.enter_context(Waiting.for_network(task, module))
        else:
            run = runner(side, subject, module)
        sides.append(Timed(side, run))
    return sides


def time_clip(
    subject: Subject,
    rounds: int,
    of_ours: Iterable[str],
    all_figures: bool = True,
) -> list[dict]:
    """A row for each peer and each of ours that is named in `of_ours`, as `timed_table` takes
    them; without bare convolutions and resident memory where they are not asked for.
    """
    module, x = subject.module(), subject.tensor()
    peers = [name for name in PEERS[subject.family] if name not in _missing()]
    with ExitStack() as stack:
        sides = _runs((*peers, *of_ours), subject, module, stack)
        whole = None
        for timed in sides:
            result = _warm_up(timed, x)
            timed.replay = timed.replay if all_figures else None
            whole = result if whole is None else whole
            timed.error = _error(result, whole, FAMILIES[subject.family].clamps == subject.kind)
        for _ in range(rounds):
            _round(sides, x)
    for timed in sides if all_figures else ():
        timed.resident_bytes = resident_elsewhere(timed.side, subject)
    medians = {timed.side: statistics.median(timed.seconds) for timed in sides}
    plans = {side: plan_of(side, subject, module) for side in of_ours}
    return [_row(timed, subject, medians, plans.get(timed.side)) for timed in sides]


def _missing() -> tuple[str, ...]:
    """The sides that cannot be timed here."""
    return (CORE, CORE_TILED) if core.missing() else ()


def _row(timed: Timed, subject: Subject, medians: dict[str, float], plan: Plan | None) -> dict:
    """The figures of one side, as JSON can hold them."""
    median = medians[timed.side]
    return {
        "family": subject.family,
        "clip": str(subject.clip),
        "kind": subject.kind,
        "side": timed.side,
        "placement": plan.placement.value if plan else None,
        "tiles": plan.tile_count() if plan else None,
        "projected_bytes": plan.peak_bytes if plan else None,
        "rounds": len(timed.seconds),
        "threads": torch.get_num_threads(),
        "seconds": median,
        "fastest": min(timed.seconds),
        "slowest": max(timed.seconds),
        "of_whole": median / medians[WHOLE] if WHOLE in medians else None,
        "of_quarters": median / medians[QUARTERS] if QUARTERS in medians else None,
        "of_core": median / medians[CORE] if CORE in medians else None,
        "of_core_tiled": median / medians[CORE_TILED] if CORE_TILED in medians else None,
        "of_bare": median / statistics.median(timed.bare_seconds) if timed.replay else None,
        "error": timed.error,
        "resident_bytes": timed.resident_bytes,
    }


def resident_elsewhere(side: str, subject: Subject) -> int | None:
    """Peak resident bytes of a process of its own that runs one side once; None for core."""
    if side in (CORE, CORE_TILED):
        return None
    words = (side, subject.family, subject.kind, str(subject.clip))
    command = [sys.executable, str(TESTS / "benchmarks"), "--resident", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    return int(done.stdout.splitlines()[-1])


@torch.inference_mode()
def resident_here(side: str, subject: Subject) -> int:
    """Peak resident bytes of this process while one side runs once, weights included."""
    module, x = subject.module(), subject.tensor()
    run = runner(side, subject, module)
    start_peak(CPU)
    run(x)
    return peak_bytes(CPU) or 0
