"""How long does a run take on this processor, against every peer in the same process?

1. All sides share one network with random weights, float32, and one random clip.
2. Each side runs once to warm up; that run gives its error against the whole and its convolutions.
3. Then all sides, and the replays of the bare convolutions of ours, take turns, n times; medians
   count.
4. Peak resident memory comes from a process of its own for each side.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from networks import random_latents, random_video
from torch import Tensor

from vae_core import Settings, from_module
from vae_core.jobs.peak_memory import peak_bytes, start_peak
from vae_core.planning.plan import Plan

from .clips import Clip
from .recording import Recorder, Replay

TESTS = Path(__file__).resolve().parents[1]

WHOLE, QUARTERS = "diffusers untiled", "diffusers 2x2"

CPU = torch.device("cpu")


def full_size_module() -> AutoencoderKLCogVideoX:
    """The published architecture with random weights from a fixed seed, float32."""
    torch.manual_seed(0)
    module = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(128, 256, 256, 512),
        layers_per_block=3,
        latent_channels=16,
    )
    return module.eval().requires_grad_(False)


def clip_tensor(kind: str, clip: Clip) -> Tensor:
    """The video to encode, or latents to decode."""
    if kind == "encode":
        return random_video(clip.frames, clip.height, clip.width)
    _, channels, frames, height, width = clip.latent_shape
    return random_latents(frames, height, width, channels=channels)


def quarter_px(clip: Clip) -> tuple[int, int]:
    """The smallest tile of diffusers, in whole latents and overlaps, of which 2x2 cover a clip.

    Its tiles overlap by 1/6 of their height and 1/5 of their width.
    """
    return 48 * -(-clip.height // 80), 40 * -(-clip.width // 64)


def plan_of(side: str, kind: str, clip: Clip, module: AutoencoderKLCogVideoX) -> Plan:
    """The plan that one of our sides follows."""
    vae = from_module(module)
    shape = clip.video_shape if kind == "encode" else clip.latent_shape
    return (vae.plan_encode if kind == "encode" else vae.plan_decode)(shape, SETTINGS[side])


SETTINGS = {"ours, planner": Settings(), "ours, 64 px": Settings(tile_px=64)}


def runner(
    side: str, kind: str, clip: Clip, module: AutoencoderKLCogVideoX
) -> Callable[[Tensor], Tensor]:
    """What takes a clip through one side."""
    if side in SETTINGS:
        vae, settings = from_module(module), SETTINGS[side]
        if kind == "encode":
            return lambda x: vae.encode(x, settings).moments
        return lambda x: vae.decode(x, settings)

    def peer(x: Tensor) -> Tensor:
        module.disable_tiling()
        if side == QUARTERS:
            module.enable_tiling(*quarter_px(clip))
        return module._encode(x) if kind == "encode" else module._decode(x).sample

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


def _seconds(work: Callable[[], object]) -> float:
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


def _error(result: Tensor, whole: Tensor) -> float | None:
    """The largest, over the range of `whole`; None between different shapes."""
    if result.shape != whole.shape:
        return None
    return float((result - whole).abs().max() / (whole.max() - whole.min()))


@torch.inference_mode()
def _round(sides: list[Timed], x: Tensor) -> None:
    for timed in sides:
        timed.seconds.append(_seconds(lambda run=timed.run: run(x)))
    for timed in sides:
        if timed.replay is not None:
            timed.bare_seconds.append(_seconds(timed.replay.run))


def time_clip(
    kind: str, clip: Clip, rounds: int, of_ours: Iterable[str] = tuple(SETTINGS)
) -> list[dict]:
    """A row for each peer and each of ours that is named in `of_ours`, as `timed_table` takes
    them.
    """
    module, x = full_size_module(), clip_tensor(kind, clip)
    names = (WHOLE, QUARTERS, *of_ours)
    sides = [Timed(side, runner(side, kind, clip, module)) for side in names]
    whole = None
    for timed in sides:
        result = _warm_up(timed, x)
        whole = result if whole is None else whole
        timed.error = _error(result, whole)
    for _ in range(rounds):
        _round(sides, x)
    for timed in sides:
        timed.resident_bytes = resident_elsewhere(timed.side, kind, clip)
    medians = {timed.side: statistics.median(timed.seconds) for timed in sides}
    plans = {side: plan_of(side, kind, clip, module) for side in of_ours}
    return [_row(timed, kind, clip, medians, plans.get(timed.side)) for timed in sides]


def _row(timed: Timed, kind: str, clip: Clip, medians: dict[str, float], plan: Plan | None) -> dict:
    """The figures of one side, as JSON can hold them."""
    median = medians[timed.side]
    return {
        "clip": str(clip),
        "kind": kind,
        "side": timed.side,
        "placement": plan.placement.value if plan else None,
        "tiles": plan.tile_count() if plan else None,
        "projected_bytes": plan.peak_bytes if plan else None,
        "rounds": len(timed.seconds),
        "threads": torch.get_num_threads(),
        "seconds": median,
        "fastest": min(timed.seconds),
        "slowest": max(timed.seconds),
        "of_whole": median / medians[WHOLE],
        "of_quarters": median / medians[QUARTERS],
        "of_bare": median / statistics.median(timed.bare_seconds) if timed.replay else None,
        "error": timed.error,
        "resident_bytes": timed.resident_bytes,
    }


def resident_elsewhere(side: str, kind: str, clip: Clip) -> int:
    """Peak resident bytes of a process of its own that runs one side once."""
    command = [sys.executable, str(TESTS / "benchmarks"), "--resident", side, kind, str(clip)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    return int(done.stdout.splitlines()[-1])


@torch.inference_mode()
def resident_here(side: str, kind: str, clip: Clip) -> int:
    """Peak resident bytes of this process while one side runs once, weights included."""
    module, x = full_size_module(), clip_tensor(kind, clip)
    run = runner(side, kind, clip, module)
    start_peak(CPU)
    run(x)
    return peak_bytes(CPU) or 0
