"""How long does the panel wait for a plan? Five hundred requests as a person makes them, one after
the other, on one core.

    cd tests; OMP_NUM_THREADS=1 python -m benchmarks.planning

1. A person takes a network, a direction, a size and a budget, and then turns one widget after the
   other; after some turns they take another network.
2. Requests are answered as the route answers them, for a card with memory of its own that is
   played: nothing is run. Seconds are those of this process on a processor, without waiting.
3. The same requests come each time. A first request of each network is made before, since it makes
   the network; all that is planned afterwards is planned for the first time where it is new.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

import torch
from pack import part
from questions import USUAL

COUNT = 500
NETWORKS = ("full", "wan", "wan22", "hunyuan15", "seedvr2", "ltx")
SIZES = ((720, 480), (832, 480), (1280, 720), (1360, 768), (640, 640), (480, 832), (1920, 1088))
FRAMES = (1, 17, 33, 49, 81, 121, 201)
BUDGETS = tuple(quarter / 4 for quarter in (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48))
CHUNKS = (4, 8, 12, 16, 32)
TILES = (0, 0, 0, 256, 512)
TURNS = 12
"""Of widgets, before another network is taken."""


def questions(count: int = COUNT, seed: int = 0) -> Iterator[dict]:
    """What the panel asks, one after the other."""
    draw, asked = random.Random(seed), dict[str, object]()
    turns = {
        "operation": lambda: {"operation": draw.choice(("encode", "decode"))},
        "size": lambda: dict(zip(("width", "height"), draw.choice(SIZES), strict=True)),
        "frames": lambda: {"frames": draw.choice(FRAMES)},
        "budget": lambda: {"memory_budget": draw.choice(BUDGETS)},
        "chunk": lambda: {"chunk_size": draw.choice(CHUNKS)},
        "tile": lambda: {"tile_size": draw.choice(TILES)},
    }
    for number in range(count):
        if number % TURNS == 0:
            asked = {**USUAL, "network": draw.choice(NETWORKS)}
            for name in ("operation", "size", "frames", "budget"):
                asked |= turns[name]()
        else:
            asked = asked | turns[draw.choice(("budget", "budget", *turns))]()
        yield asked


@contextmanager
def played_card() -> Iterator[None]:
    """Inside the block the panel plans for a card with memory of its own."""
    card, machine = part("nodes.bridge.card"), part("vae_core.planning.machine")
    workspaces = part("vae_core.planning.workspaces").Workspaces()
    there = machine.Machine(True, machine.ACCELERATOR_WORKSPACE_BYTES, workspaces=workspaces)
    memory = card.DeviceMemory(torch.device("meta"), 24 * 2**30, 24 * 2**30)
    with (
        patch.object(part("vae_core.running.machines"), "machine_for", lambda *_: there),
        patch.object(card, "device_memory", lambda: memory),
    ):
        yield


def seconds(asked: dict) -> float:
    """How long one answer takes."""
    question = part("nodes.bridge.routes").checked(json.dumps(asked).encode())
    start = time.process_time()
    part("nodes.bridge.planning").answer_for(question)
    return time.process_time() - start


def main(count: int = COUNT) -> None:
    """Print what was found."""
    with played_card():
        for network in NETWORKS:
            seconds({**USUAL, "network": network, "width": 64, "height": 64, "frames": 1})
        every = list(questions(count))
        gc.collect()
        gc.freeze()  # how much else a process holds is no matter of plans
        found = [seconds(asked) for asked in every]
    worst = sorted(zip(found, every, strict=True), key=lambda pair: -pair[0])[:SHOWN]
    print(f"{count} requests: median {1e3 * median(found):.1f} ms, worst {1e3 * max(found):.1f} ms")
    for took, asked in worst:
        names = ("network", "operation", "frames", "height", "width", "memory_budget")
        rest = ("chunk_size", "tile_size")
        print(f"{1e3 * took:6.1f} ms", *(f"{name}={asked[name]}" for name in (*names, *rest)))


SHOWN = 8
"""Of the slowest requests."""

if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
