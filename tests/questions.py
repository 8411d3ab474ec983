"""What do tests ask the plan route: what a panel asks, and what no panel would?"""

from __future__ import annotations

import json
import random

USUAL = {
    "operation": "decode",
    "network": "full",
    "dtype": "bf16",
    "width": 720,
    "height": 480,
    "frames": 49,
    "chunk_size": 8,
    "tile_size": 0,
    "overlap": 64,
    "tiling": "exact",
    "norm_scope": "chunk",
    "memory_budget": 2.0,
}

TEN_SETTINGS = [
    {},
    {"operation": "encode"},
    {"chunk_size": 16, "memory_budget": 1.5},
    {"tile_size": 256},
    {"operation": "encode", "tile_size": 128, "chunk_size": 12, "frames": 201},
    {"tiling": "blend", "tile_size": 240, "overlap": 32},
    {"operation": "encode", "tiling": "blend", "width": 1360, "height": 768, "frames": 81},
    {"tiling": "off", "memory_budget": 0.0, "width": 320, "height": 192},
    {"norm_scope": "clip", "frames": 81},
    {"network": "tiny", "dtype": "fp32", "frames": 1001, "chunk_size": 4, "memory_budget": 0.5},
]

WAN_SETTINGS = [
    {"network": "wan", "width": 832},
    {"network": "wan", "operation": "encode", "frames": 81, "chunk_size": 32, "memory_budget": 0.5},
    {"network": "wan", "frames": 1001, "chunk_size": 20, "memory_budget": 1.0},
    {"network": "wan", "frames": 1, "width": 2560, "height": 1440, "memory_budget": 0.0},
    {"network": "wan", "tiling": "blend", "tile_size": 240, "overlap": 32},
    {"network": "tiny_wan", "dtype": "fp32", "norm_scope": "clip", "frames": 201},
    {"network": "wan", "width": 832, "frames": 17, "tile_size": 512, "memory_budget": 0.75},
]
"""Of a network without statistics, whose planner takes shorter chunks than it is asked for."""

SHARED_SETTINGS = [
    {"ranks": 2},
    {"ranks": 4, "operation": "encode", "frames": 201},
    {"ranks": 3, "network": "wan", "width": 832, "frames": 121, "memory_budget": 1.0},
]
"""Where an Apply names several devices."""


def fuzzed(rng: random.Random) -> bytes:
    """A question with up to three wrong, extreme or ordinary values."""
    question = {**USUAL, **rng.choice(TEN_SETTINGS)}
    odd = [None, True, -1, 0, 1, 3, 8, 16, 4096, 10**6, 10**400, 0.5, 1e308, "", "x" * 50, [], {},
           "exact", "blend", "off", "clip", "encode", "tiny", "fp32", "../x", "\ud800"]  # fmt: skip
    for _ in range(rng.randrange(4)):
        name = rng.choice([*question, "path", "__proto__", "frame_policy"])
        question[name] = rng.choice([*odd, rng.randrange(1, 20_000)])
    body = json.dumps(question).encode()
    return body[: rng.randrange(len(body))] if rng.random() < 0.1 else body
