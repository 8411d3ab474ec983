"""Run as a program: forks processes that share work over gloo, and prints what each found, as JSON.

rank_process.py equal FOLDER FAMILIES COUNTS    the largest difference from one process alone
rank_process.py kill FOLDER TIMES                  what the others say when one is killed
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from networks import NARROW, random_latents, random_video

from vae_core import ParallelError, Settings, from_module

_TIMEOUT_S = 8.0
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
            timeout=timedelta(seconds=60),
        )
        found = work(rank, dist.group.WORLD)
        Path(f"{place}.{rank}").write_text(json.dumps(found))
        os._exit(0)

    workers = [start.Process(target=run, args=(rank,)) for rank in range(ranks)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
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


def killed(at: int) -> Callable[[int, Any], object]:
    """What a process says, and after how many seconds, when rank 1 dies after so many tiles."""

    def work(rank: int, group: Any) -> tuple[str, float]:
        vae, tiles, since = (
            from_module(NARROW["cogvideox"](torch.float32)),
            count(),
            time.monotonic(),
        )

        def watch(progress: object) -> None:
            if next(tiles) == at and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        settings = Settings(
            4, parallel=group, parallel_timeout_s=_TIMEOUT_S, on_progress=watch, tile_px=16
        )
        try:
            vae.decode(random_latents(3, 5, 4), settings)
        except ParallelError as error:
            return str(error), time.monotonic() - since
        return "", float(next(tiles))

    return work


def main() -> None:
    torch.set_num_threads(1)
    mode, folder, *rest = sys.argv[1:]
    if mode == "equal":
        families = rest[0].split(",")
        found = {n: forked(n, Path(folder), differences(families)) for n in map(int, rest[1:])}
    else:
        _, (_, tiles), _ = forked(3, Path(folder), killed(-1))
        steps = random.Random(20).sample(range(int(tiles)), int(rest[0]))
        found = {at: forked(3, Path(folder), killed(at)) for at in steps}
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
