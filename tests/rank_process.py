"""Run as a program: forks processes that share work over gloo, and prints what each found, as JSON.

rank_process.py equal FOLDER FAMILIES COUNTS    how far each is from one process alone, at most
rank_process.py grid FOLDER COUNTS              the same for every case of a grid
rank_process.py kill FOLDER TIMES               what the others say when one is killed
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from networks import NARROW, random_latents, random_video
from ranks import poison
from torch import Tensor

from vae_core import ParallelError, Settings, from_module

TIMEOUT_S = 30.0
_rounds = count()


def forked(ranks: int, folder: Path, work: Callable[[int, Any], object]) -> list[Any]:
    """What `work` gives in each of so many processes; None of one that died."""
    start, place = get_context("fork"), folder / f"round{next(_rounds)}"

    def run(rank: int) -> None:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{place}",
            rank=rank,
            world_size=ranks,
            timeout=timedelta(seconds=1500),
        )
        found = work(rank, dist.group.WORLD)
        Path(f"{place}.{rank}").write_text(json.dumps(found))
        os._exit(0)

    workers = [start.Process(target=run, args=(rank,)) for rank in range(ranks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(1500)
    said = [Path(f"{place}.{rank}") for rank in range(ranks)]
    return [json.loads(path.read_text()) if path.exists() else None for path in said]


def differences(families: list[str]) -> Callable[[int, Any], object]:
    """Of every family, encoded and decoded, from what the same process gives alone."""

    def work(rank: int, group: Any) -> float:
        worst = 0.0
        for family in families:
            vae = from_module(NARROW[family](torch.float64))
            shared = Settings(parallel=group, parallel_result="all")
            video = random_video(5, 5 * vae.ratios.px, 40, torch.float64, batch=2)
            moments = vae.encode(video).moments
            worst = max(worst, float((vae.encode(video, shared).moments - moments).abs().max()))
            latents = moments.chunk(2, 1)[0]
            alone = vae.decode(latents)
            worst = max(worst, float((vae.decode(latents, shared) - alone).abs().max()))
        return worst

    return work


@dataclass(frozen=True, slots=True)
class Case:
    """One of the grid: two clips of so many frames, whose height is no multiple of anything.

    expected: moments and video that one process gives.
    """

    family: str
    scope: str
    dtype: torch.dtype
    frames: int
    expected: tuple[Tensor, Tensor]

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.family} {self.scope} {str(self.dtype)[6:]} {self.frames}"

    def difference(self, group: Any) -> float:
        """How far ranks are from it: in float32 as a part of the range."""
        settings = Settings(parallel=group, parallel_result="all", parallel_timeout_s=1500)
        found = run(self.family, self.scope, self.dtype, self.frames, settings)
        single = self.dtype == torch.float32
        spans = (float(x.max() - x.min()) if single else 1.0 for x in self.expected)
        pairs = zip(found, self.expected, spans, strict=True)
        return max(float((x - y).abs().max()) / span for x, y, span in pairs)


def run(
    family: str, scope: str, dtype: torch.dtype, frames: int, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Moments of clips, and the video of latents, the same whoever makes it."""
    vae, settings = from_module(NARROW[family](dtype)), replace(settings, norm_scope=scope)
    video = random_video(frames, 7 * vae.ratios.px - 3, 3 * vae.ratios.px, dtype, batch=2)
    moments = vae.encode(video, settings).moments
    latents = random_latents(moments.shape[2], 7, 3, dtype, batch=2, channels=vae.latent_channels)
    return moments, vae.decode(latents, settings)


KINDS = [("cogvideox", "chunk"), ("cogvideox", "clip"), ("wan", "chunk"), ("hunyuan15", "chunk")]
"""The last one's attention keeps the keys of earlier frames."""


def grid() -> list[Case]:
    """All cases, with what one process gives."""
    return [
        Case(family, scope, dtype, frames, run(family, scope, dtype, frames, Settings()))
        for family, scope in KINDS
        for dtype in (torch.float32, torch.float64)
        for frames in (1, 5, 21)
    ]


def gone_through(cases: list[Case]) -> Callable[[int, Any], object]:
    """What each process finds, by case; whatever has not been written is NaN there."""

    def work(rank: int, group: Any) -> dict[str, float]:
        poison(setattr)
        return {case.name: case.difference(group) for case in cases}

    return work


def killed(at: int, moment: Path) -> Callable[[int, Any], object]:
    """What a process says, and how long after it, when rank 1 dies after so many tiles; how many
    there are where it never does.

    moment: where rank 1 writes down when that is, on the clock of all processes.
    """

    def work(rank: int, group: Any) -> tuple[str, float]:
        vae, tiles = from_module(NARROW["cogvideox"](torch.float32)), count()

        def watch(progress: object) -> None:
            if next(tiles) == at and rank == 1:
                moment.write_text(str(time.monotonic()))
                os.kill(os.getpid(), signal.SIGKILL)

        settings = Settings(
            4, parallel=group, parallel_timeout_s=TIMEOUT_S, on_progress=watch, tile_px=16
        )
        try:
            vae.decode(random_latents(3, 5, 4), settings)
        except ParallelError as error:
            return str(error), time.monotonic() - float(moment.read_text())
        return "", float(next(tiles))

    return work


def main() -> None:
    torch.set_num_threads(1)
    mode, folder, *rest = sys.argv[1:]
    if mode == "equal":
        families = rest[0].split(",")
        found = {n: forked(n, Path(folder), differences(families)) for n in map(int, rest[1:])}
    elif mode == "grid":
        cases = grid()
        found = {n: forked(n, Path(folder), gone_through(cases)) for n in map(int, rest)}
    else:
        place = Path(folder)
        _, (_, tiles), _ = forked(3, place, killed(-1, place))
        steps = random.Random(20).sample(range(int(tiles)), int(rest[0]))
        found = {at: forked(3, place, killed(at, place / f"{at}.died")) for at in steps}
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
