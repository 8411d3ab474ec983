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

from vae_core import Settings, from_module
from vae_core.planning.machine import ACCELERATOR_WORKSPACE_BYTES, Machine
from vae_core.planning.plan import Plan, chunk_extent
from vae_core.program.parts import Attend

from . import core
from .calls import each_state_once
from .clips import Clip
from .counting import DEVICE, Count, Counter, count
from .families import FAMILIES
from .repeats import each_kind_once

DTYPE = torch.bfloat16

CARD = Machine(apart=True, workspace_bytes=ACCELERATOR_WORKSPACE_BYTES)
"""A graphics card beside a host with all the memory that is asked of it."""


def on_card() -> AbstractContextManager[object]:
    """Inside the block plans are for `CARD`, whatever is free here and now."""
    return patch("vae_core.running.machines.machine_for", lambda *_: CARD)


def input_shape(kind: str, clip: Clip, family: str) -> tuple[int, ...]:
    """[b, c, t, h, w] of a video to encode, or of latents to decode."""
    return clip.video_shape if kind == "encode" else clip.latent_shape(FAMILIES[family].grid)


def attention_operations(plan: Plan) -> int:
    """Of a plan's operations, those of attention."""
    program, total = plan.job.program, 0
    for job, chunk, times in plan.work():
        extents = program.extents(chunk_extent(job, chunk), chunk)
        for step in program.steps:
            if isinstance(step.mix, Attend):
                cells, src = step.mixed_extent(extents[step.src], chunk), extents[step.src]
                total += times * job.batch * step.operations(cells, src)
    whole = (crop.program.outward_operations(crop.source, plan.chunks) for crop in plan.crops)
    return total + plan.job.batch * sum(whole)


@lru_cache(maxsize=2)
def _planning_vae(family: str):
    return from_module(FAMILIES[family].unmade(DTYPE), device=DEVICE)


@dataclass(frozen=True, slots=True)
class Ours:
    """Exact tiles, chunks of 8 frames, or of up to 8 where the planner may choose.

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

    def plan(self, kind: str, clip: Clip, family: str = "cogvideox") -> Plan:
        """What is projected; nothing is run."""
        vae, shape = _planning_vae(family), input_shape(kind, clip, family)
        plan = vae.plan_encode if kind == "encode" else vae.plan_decode
        with on_card():
            return plan(shape, self.settings)

    def count(self, kind: str, clip: Clip, family: str = "cogvideox") -> Count:
        """What a run takes on the device."""

        def prepare():
            vae = from_module(FAMILIES[family].unmade(DTYPE), device=DEVICE)
            x = torch.empty(input_shape(kind, clip, family), dtype=DTYPE, device="cpu")
            run = vae.encode if kind == "encode" else vae.decode

            def start(counter: Counter) -> None:
                shortcut = nullcontext() if self.every_tile else each_kind_once(counter)
                with on_card(), shortcut:
                    run(x, self.settings)

            return start

        return count(prepare)


@dataclass(frozen=True, slots=True)
class Diffusers:
    """The family's autoencoder of diffusers, untiled or with `enable_tiling()` as it comes.

    every_call: run each call of a network rather than one of each kind.
    """

    tiled: bool = False
    every_call: bool = False

    @property
    def name(self) -> str:
        return "diffusers tiled" if self.tiled else "diffusers untiled"

    def count(self, kind: str, clip: Clip, family: str = "cogvideox") -> Count:
        """What a run takes on the device, the input and the result included."""

        def prepare():
            module = FAMILIES[family].unmade(DTYPE)
            if self.tiled:
                module.enable_tiling()
            run = module._encode if kind == "encode" else module._decode
            shape, streams = input_shape(kind, clip, family), hasattr(module, "clear_cache")

            def start(counter: Counter) -> None:
                if streams and not self.every_call:
                    each_state_once(counter, module.encoder)
                    each_state_once(counter, module.decoder)
                run(torch.empty(shape, dtype=DTYPE, device=DEVICE))

            return start

        return count(prepare)


@dataclass(frozen=True, slots=True)
class Core:
    """ComfyUI core's own class, as its VAE Encode and VAE Decode nodes run it, or as the tiled
    ones do at their defaults.
    """

    tiled: bool = False

    @property
    def name(self) -> str:
        return "ComfyUI core tiled" if self.tiled else "ComfyUI core"

    def count(self, kind: str, clip: Clip, family: str = "cogvideox") -> Count:
        """As for diffusers; raises `RuntimeError` where core's code cannot be run."""
        task = core.Task(family, kind, self.tiled)
        return core.count_elsewhere(task, input_shape(kind, clip, family))


Side = Ours | Diffusers | Core
