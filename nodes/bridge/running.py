"""How does a node run the engine inside the host?

1. Plan with room to spare; ask the host for that much; where less is free, plan again within it.
2. Run chunk by chunk, watched (`live.Watch`); finished frames go straight into the result,
   wherever the host keeps results.
3. Say what was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...vae_core import Extent, Posterior, Settings, SettingsError
from ...vae_core.geometry.fitting import Fitted
from ...vae_core.planning.plan import Plan
from . import host
from .images import pixel_runs, write_frames
from .live import Watch
from .widgets import refusal

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Encoded:
    """A clip's posterior and how it was made."""

    posterior: Posterior
    plan: Plan
    seconds: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures [b, t, h, w, c] in [0, 1], and how they were made."""

    images: Tensor
    plan: Plan
    seconds: float


def settled(
    vae: Any, planner: Callable[[Settings], Plan], settings: Settings
) -> tuple[Settings, Plan]:
    """Settings and a plan that fit what is free, once the host has made room for the run.

    Raises `BudgetError` where nothing fits.
    """
    plan = planner(settings)
    host.make_room(vae, plan.peak_bytes)
    free = host.free_bytes(vae)
    if settings.budget_bytes is None and free is not None and plan.peak_bytes > free:
        settings = replace(settings, budget_bytes=free)
        plan = planner(settings)
    return settings, plan


def planned(vae: Any, operation: str, size: tuple[int, int, int], settings: Settings) -> Plan:
    """The plan for a clip of `size` (frames, height, width) with what is free now; nothing is
    loaded or run.
    """
    engine, free = vae.video_vae, host.free_bytes(vae)
    if settings.budget_bytes is None and free is not None:
        settings = replace(settings, budget_bytes=free)
    if operation == "encode":
        return engine.plan_encode((1, vae.ends.colours_in, *size), settings)
    return engine.plan_decode(vae.ends.latent_shape(*size), settings)


def encode_image(vae: Any, image: Tensor, settings: Settings, watch: Watch) -> Encoded:
    """The posterior of an IMAGE [t, h, w, c] in [0, 1], of as many colours as the VAE takes."""
    engine = vae.video_vae
    frames, height, width, colours = image.shape
    shape = (1, colours, frames, height, width)
    settings, plan = settled(vae, lambda s: engine.plan_encode(shape, s), settings)
    watch.begin(plan, vae)
    stream = engine.encode_stream(
        pixel_runs(image, engine.dtype), replace(settings, on_progress=watch), frames
    )
    parts: list[Tensor] = []
    encoded = 0  # latent frames
    for part in stream:
        parts.append(part.to(vae.output_device))
        encoded += part.shape[2]
        watch.glimpse(image[min(vae.ends.sample_frames(encoded), frames) - 1, ..., :3])
    watch.end()
    moments = torch.cat(parts, dim=2)
    return Encoded(Posterior.from_moments(moments, stream.fitted), plan, watch.seconds)


def decode_latents(
    vae: Any, samples: Tensor, settings: Settings, size: Extent | None, watch: Watch
) -> Decoded:
    """The pictures of unscaled latents [b, c, n, h/8, w/8]; size: (t, h, w) to keep of them."""
    engine = vae.video_vae
    settings, plan = settled(vae, lambda s: engine.plan_decode(tuple(samples.shape), s), settings)
    watch.begin(plan, vae)
    b, _, n, h, w = samples.shape
    ends = vae.ends
    size = size or Extent(ends.sample_frames(n), ends.px * h, ends.px * w)
    shape = (b, size.t, size.h, size.w, ends.colours_out)
    images = torch.empty(shape, dtype=host.result_dtype(), device=vae.output_device)
    at = 0
    for frames in engine.decode_stream(samples, replace(settings, on_progress=watch)):
        stop = min(at + frames.shape[2], size.t)
        if stop > at:
            write_frames(images[:, at:stop], frames[:, :, : stop - at])
            watch.show(images[0, stop - 1, ..., :3])
        at = stop
    watch.end()
    return Decoded(images, plan, watch.seconds)


def chosen_samples(posterior: Posterior, values: dict[str, Any]) -> Tensor:
    """Latents of a posterior, as the widgets `posterior` and `sample_seed` say."""
    if values["posterior"] == "mode":
        return posterior.mode()
    return posterior.sample(torch.Generator().manual_seed(values["sample_seed"]))


def settings_of(values: dict[str, Any]) -> Settings:
    """The engine's settings for a node's widgets; what a node does not have is as usual.

    Raises `SettingsError` that names the widget: linked values are seen here for the first time.
    """
    if (reason := refusal(values)) is not None:
        raise SettingsError(reason)
    budget = values.get("memory_budget")
    return Settings(
        chunk_frames=values["chunk_size"],
        tiling=values.get("tiling", "exact"),
        tile_px=values.get("tile_size") or None,
        overlap_px=values.get("overlap", 64),
        norm_scope=values.get("norm_scope", "chunk"),
        budget_bytes=round(budget * _GIB) if budget else None,
        frame_fit=values.get("frame_policy", "pad"),
        size_fit=values.get("size_policy", "pad"),
    )


def report(
    vae: Any, plan: Plan, seconds: float, notes: list[str], fitted: Fitted | None = None
) -> str:
    """What was planned, used and changed, for a person."""
    lines = [plan.describe(), f"  VAE: {vae.video_vae.family.title}", f"  took {seconds:.1f} s"]
    lines += [f"  note: {note}" for note in [*notes, *(fitted.notes if fitted else ())]]
    return "\n".join(lines)
