"""How do many processes, on one machine or on several, encode a folder together?

1. Ray (`pip install exact-video-vae[ray]`) starts actors, each of which loads the VAE once. All of
   them see the folders of clips and of results under the same names.
2. Clips are handed to whichever actor is free. Scheduling, restarts and retries are Ray's: a worker
   that dies is started again, and its clip is given to it or to another one.
3. A worker writes its clip's file itself, whole or not at all, and tells only what it has done.

Every worker computes with the threads that one process would use, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import SettingsError, VideoError
from .clips import SourceClip
from .encoding import Encoding, Recipe
from .running import Outcome
from .shards import Skipped
from .trainers import shards_for

_RETRIES = 3


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker needs to know.

    vae: file or folder. dtype, device: to compute in and on. threads: of PyTorch, on a CPU.
    results: the folder of results.
    """

    vae: Path
    dtype: torch.dtype
    device: str
    threads: int
    recipe: Recipe
    results: Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which Ray to use: address, and how many workers (None: one a GPU, or else one a CPU core).

    Address `local` starts a Ray of one's own on this machine.
    """

    address: str
    workers: int | None = None


class Worker:
    """One process with a VAE of its own."""

    def __init__(self, work: Work) -> None:
        from .. import load  # a package that is being imported has no `load` yet

        torch.set_num_threads(work.threads)
        vae = load(work.vae, dtype=work.dtype, device=work.device)
        shards = shards_for(work.results, work.recipe.format)
        self._encoding = Encoding(vae, work.recipe, shards)

    def encode(self, clip: SourceClip) -> Outcome | VideoError:
        """One clip; what forbids writing comes back as a value, which Ray does not wrap."""
        try:
            return self._encoding.encode(clip)
        except VideoError as error:
            return error


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(
            "--ray needs Ray, which is not installed: pip install exact-video-vae[ray]"
        ) from None
    return ray  # pyright: ignore[reportUnknownVariableType]


def ray_workers(work: Work, cluster: Cluster, clips: Sequence[SourceClip]) -> Iterator[Outcome]:
    """What became of every clip, in the order in which they end.

    Raises `SettingsError` where Ray is missing or does not answer, `VideoError` where results
    cannot be written.
    """
    ray = _ray()
    address = None if cluster.address == "local" else cluster.address
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises plain ones, too
        raise SettingsError(f"no Ray answers at {cluster.address}: {error}") from error
    try:
        yield from _handed_out(ray, work, cluster, clips)
    finally:
        ray.shutdown()


def _actors(ray: Any, work: Work, cluster: Cluster, clips: int) -> list[Any]:
    resources: dict[str, float] = ray.cluster_resources()
    on_gpu = work.device.startswith("cuda")
    room = int(resources.get("GPU" if on_gpu else "CPU", 1)) or 1
    count = max(min(cluster.workers or room, clips), 1)
    options = {"num_gpus": 1} if on_gpu else {"num_cpus": min(1.0, room / count)}
    kind = ray.remote(Worker).options(max_restarts=-1, max_task_retries=_RETRIES, **options)
    return [kind.remote(work) for _ in range(count)]


def _handed_out(
    ray: Any, work: Work, cluster: Cluster, clips: Sequence[SourceClip]
) -> Iterator[Outcome]:
    """Hand a clip to every actor, and the next one to whichever is done."""
    waiting = list(reversed(clips))
    running: dict[Any, tuple[Any, SourceClip]] = {}

    def hand_to(actor: Any) -> None:
        if waiting:
            clip = waiting.pop()
            running[actor.encode.remote(clip)] = (actor, clip)

    for actor in _actors(ray, work, cluster, len(clips)):
        hand_to(actor)
    while running:
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        actor, clip = running.pop(done)
        try:
            outcome = ray.get(done)
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]
            outcome = Skipped(clip.source, f"its worker died {_RETRIES + 1} times: {said}")
        if isinstance(outcome, VideoError):
            raise outcome
        hand_to(actor)
        yield outcome
