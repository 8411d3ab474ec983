"""Who is measured, and how is each of them started?

1. `Ours`: one choice of placement, tile size and budget.
2. `Diffusers`: its autoencoder as it is, or with its own tiling at its own defaults.
3. `Core`: ComfyUI core's class, in an interpreter that can import it (`core.py`).

A side counts itself. Where a peer wants its input on the device, the input is made there and
counted; ours reads from the host and writes its result there, chunk by chunk.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from unittest.mock import patch

import torch
from networks import full_size_module

from vae_core import Settings, from_module
from vae_core.planning.machine import ACCELERATOR_WORKSPACE_BYTES, Machine
from vae_core.planning.plan import Plan

from . import core
from .clips import Clip
from .counting import DEVICE, Count, Counter, count
from .repeats import each_kind_once

DTYPE = torch.bfloat16

CARD = Machine(apart=True, workspace_bytes=ACCELERATOR_WORKSPACE_BYTES)
"""A graphics card beside a host with all the memory that is asked of it."""


def on_card() -> AbstractContextManager[object]:
    """Inside the block plans are for `CARD`, whatever is free here and now."""
    return patch("vae_core.vae.machine_for", lambda _: CARD)


def input_shape(kind: str, clip: Clip) -> tuple[int, ...]:
    """[b, c, t, h, w] of a video to encode, or of latents to decode."""
    return clip.video_shape if kind == "encode" else clip.latent_shape


@lru_cache(maxsize=1)
def _planning_vae():
    return from_module(full_size_module(DTYPE), device=DEVICE)


@dataclass(frozen=True, slots=True)
class Ours:
    """Exact tiles, chunks of 8 frames.

    placement, tile_px, budget_bytes, norm_scope: as in `Settings`.
    every_tile: run each tile rather than one of each kind.
    """

    placement: str = "auto"
    tile_px: int | None = None
    budget_bytes: int | None = None
    every_tile: bool = False
    norm_scope: str = "chunk"
    name = "ours"

    @property
    def settings(self) -> Settings:
        return Settings(
            chunk_frames=8,
            placement=self.placement,
            tile_px=self.tile_px,
            budget_bytes=self.budget_bytes,
            norm_scope=self.norm_scope,
        )

    def plan(self, kind: str, clip: Clip) -> Plan:
        """What is projected; nothing is run."""
        vae, shape = _planning_vae(), input_shape(kind, clip)
        plan = vae.plan_encode if kind == "encode" else vae.plan_decode
        with on_card():
            return plan(shape, self.settings)

    def count(self, kind: str, clip: Clip) -> Count:
        """What a run takes on the device."""

        def prepare():
            vae = from_module(full_size_module(DTYPE), device=DEVICE)
            x = torch.empty(input_shape(kind, clip), dtype=DTYPE, device="cpu")
            run = vae.encode if kind == "encode" else vae.decode

            def start(counter: Counter) -> None:
                shortcut = nullcontext() if self.every_tile else each_kind_once(counter)
                with on_card(), shortcut:
                    run(x, self.settings)

            return start

        return count(prepare)


@dataclass(frozen=True, slots=True)
class Diffusers:
    """AutoencoderKLCogVideoX of diffusers, untiled or with `enable_tiling()` as it comes."""

    tiled: bool = False

    @property
    def name(self) -> str:
        return "diffusers tiled" if self.tiled else "diffusers untiled"

    def count(self, kind: str, clip: Clip) -> Count:
        """What a run takes on the device, the input and the result included."""

        def prepare():
            module = full_size_module(DTYPE)
            if self.tiled:
                module.enable_tiling()
            run = module._encode if kind == "encode" else module._decode
            shape = input_shape(kind, clip)
            return lambda _: run(torch.empty(shape, dtype=DTYPE, device=DEVICE))

        return count(prepare)


@dataclass(frozen=True, slots=True)
class Core:
    """ComfyUI core's own class, as its VAE Encode and VAE Decode nodes run it."""

    name = "ComfyUI core"

    def count(self, kind: str, clip: Clip) -> Count:
        """As for diffusers; raises `RuntimeError` where core's code cannot be run."""
        return core.count_elsewhere(input_shape(kind, clip), kind)


Side = Ours | Diffusers | Core
