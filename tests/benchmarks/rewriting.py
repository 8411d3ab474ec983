"""What does each rewrite of CogVideoX's programs save?

1. Each is added to those before it, on the same clip, everything on the device.
2. Operations and bytes are what plans say; the diffusers row is counted.

3. Summed taps are for clips of one frame only, and have rows of their own on one.

Phase convolutions and modulation at latent resolution are part of lowering itself, and so of the
first row of ours. That rewritten programs equal the plain ones is shown by the tests of the laws.
"""

from __future__ import annotations

from collections.abc import Callable

from networks import full_size_module

from vae_core import Settings
from vae_core.families.cogvideox import lower_decoder, lower_encoder
from vae_core.geometry.region import Extent
from vae_core.planning.plan import Job
from vae_core.planning.planner import make_plan
from vae_core.program.rewrites import narrow_in_place, still_frame, unique_frames
from vae_core.program.steps import Program

from .clips import USUAL, Clip
from .sides import CARD, DTYPE, Diffusers

CLIP = Clip(49, 480, 720)

STILL = Clip(1, 480, 720)

Rewrites = tuple[tuple[str, Callable[[Program], Program]], ...]

STILL_REWRITES: Rewrites = (("as lowered", lambda program: program), ("+ summed taps", still_frame))

REWRITES: Rewrites = (
    ("as lowered", lambda program: program),
    ("+ unique frames", unique_frames),
    ("+ narrower results in place", narrow_in_place),
)


def still_rows(kind: str) -> list[tuple[str, int, int]]:
    """As `rewrite_rows`, of what one frame needs."""
    return rewrite_rows(kind, STILL, STILL_REWRITES)


def rewrite_rows(
    kind: str, clip: Clip = CLIP, rewrites: Rewrites = REWRITES
) -> list[tuple[str, int, int]]:
    """(what, operations, peak bytes) of untiled diffusers, then of every rewrite."""
    whole = Diffusers().count(kind, clip)
    rows = [("diffusers untiled", whole.operations, whole.peak_bytes)]
    module = full_size_module(DTYPE)
    program = lower_encoder(module) if kind == "encode" else lower_decoder(module)
    shape = clip.video_shape if kind == "encode" else clip.latent_shape(USUAL)
    for what, rewrite in rewrites:
        program = rewrite(program)
        job = Job(program, 1, Extent(*shape[2:]), DTYPE.itemsize)
        plan = make_plan(job, Settings(placement="device"), CARD)
        rows.append((what, plan.operations, plan.peak_bytes))
    return rows
