"""How does a node run the engine inside the host?

1. Plan within what the card can give, ask the host for that much once, and plan again where less is
   free after all (`card`).
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

from ...vae_core import Extent, Posterior, Reference, Settings, SettingsError
from ...vae_core.geometry.fitting import Fitted
from ...vae_core.planning.plan import Plan, chunk_extent
from ...vae_core.running.autocast import joined
from ...vae_core.running.crew import members_of
from ...vae_core.running.devices import dtype_words
from . import card, host
from .images import pixel_runs, write_frames
from .live import Watch
from .ltx import noised
from .widgets import device_names, refusal

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Encoded:
    """A clip's posterior and how it was made; notes: what to tell of it."""

    posterior: Posterior
    plan: Plan
    seconds: float
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pictures [b, t, h, w, c] in [0, 1], and how they were made; notes: what to tell of it."""

    images: Tensor
    plan: Plan
    seconds: float
    notes: list[str]


def settled(
    vae: Any, planner: Callable[[Settings], Plan], settings: Settings
) -> tuple[Settings, Plan]:
    """Settings and a plan that fit what is free, once the host has made room for the run.

    Raises `BudgetError` where nothing fits.
    """
    plan = planner(settings)
    beside = _result_bytes(vae, plan)
    settings, plan = _within(_rooms(vae, beside, settings), planner, (settings, plan))
    card.load(vae, plan.peak_bytes + beside)
    for device, other in zip(_others(vae, settings), plan.others, strict=True):
        card.make_room(device, other.peak_bytes)
    free = card.free_bytes(vae)
    return _within([None if free is None else free - beside], planner, (settings, plan))


def _others(vae: Any, settings: Settings) -> list[torch.device]:
    """The devices that share a VAE's run beside its own."""
    members = members_of(vae.video_vae, settings) if settings.devices else ()
    return [member.device for member in members[1:]]


def _rooms(vae: Any, beside: int, settings: Settings) -> list[int | None]:
    """What plans may take on the VAE's own device, beside so many bytes, and on the others."""
    own = card.room_bytes(vae)
    others = map(card.room_elsewhere_bytes, _others(vae, settings))
    return [None if own is None else own - beside, *others]


def _within(
    rooms: list[int | None], planner: Callable[[Settings], Plan], made: tuple[Settings, Plan]
) -> tuple[Settings, Plan]:
    """Settings and a plan that fit the rooms of all devices, made anew where those that are made
    take more; None: there is no end to it.
    """
    settings, plan = made
    pairs = zip((plan, *plan.others), rooms, strict=False)
    if all(room is None or one.peak_bytes <= room for one, room in pairs):
        return made
    least = min(room for room in rooms if room is not None)
    settings = replace(settings, budget_bytes=max(least, 1))
    return settings, planner(settings)


def _result_bytes(vae: Any, plan: Plan) -> int:
    """Bytes that a result takes where it stays on the card: in the host's dtype, and the part that
    was computed last in the engine's.
    """
    if not card.keeps_results(vae):
        return 0
    job, sink = plan.job, plan.job.program.stores[plan.job.program.sink]
    largest = max(plan.chunks, key=lambda chunk: chunk.target.size)
    made = job.program.extents(chunk_extent(job, largest), largest)[job.program.sink]
    frame = job.batch * sink.channels * made.h * made.w
    frames = plan.chunks[-1].target.stop
    last = frames if plan.blend else largest.target.size
    return frame * (frames * host.result_dtype().itemsize + last * job.element_bytes)


def planned(vae: Any, operation: str, size: tuple[int, int, int], settings: Settings) -> Plan:
    """The plan for a clip of `size` (frames, height, width) as it would be run; nothing is loaded
    or run.
    """
    engine = vae.video_vae

    def planner(settings: Settings) -> Plan:
        if operation == "encode":
            return engine.plan_encode((1, vae.ends.colours_in, *size), settings)
        return engine.plan_decode(vae.ends.latent_shape(*size), settings)

    plan = planner(settings)
    rooms = _rooms(vae, _result_bytes(vae, plan), settings)
    return _within(rooms, planner, (settings, plan))[1]


def encode_image(vae: Any, image: Tensor, settings: Settings, watch: Watch) -> Encoded:
    """The posterior of an IMAGE [t, h, w, c] in [0, 1], of as many colours as the VAE takes."""
    with card.current(vae):
        return _encoded(vae, image, settings, watch)


def _encoded(vae: Any, image: Tensor, settings: Settings, watch: Watch) -> Encoded:
    engine = vae.video_vae
    frames, height, width, colours = image.shape
    shape = (1, colours, frames, height, width)
    settings, plan = settled(vae, lambda s: engine.plan_encode(shape, s, probing=True), settings)
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
    moments = joined(parts, dim=2)
    return Encoded(
        Posterior.from_moments(moments, stream.fitted),
        plan,
        watch.seconds,
        card.seen(vae, engine, plan),
    )


def decode_latents(
    vae: Any, samples: Tensor, settings: Settings, size: Extent | None, watch: Watch
) -> Decoded:
    """The pictures of unscaled latents [b, c, n, h/r, w/r]; size: (t, h, w) to keep of them."""
    with card.current(vae):
        return _decoded(vae, samples, settings, size, watch)


def _decoded(
    vae: Any, samples: Tensor, settings: Settings, size: Extent | None, watch: Watch
) -> Decoded:
    engine, samples = vae.video_vae, noised(samples, vae.first_stage_model.told)
    shape = tuple(samples.shape)
    settings, plan = settled(vae, lambda s: engine.plan_decode(shape, s, probing=True), settings)
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
    return Decoded(images, plan, watch.seconds, card.seen(vae, engine, plan))


def chosen_samples(vae: Any, posterior: Posterior, values: dict[str, Any]) -> Tensor:
    """Latents of a posterior as the host has them, and the widgets `posterior` and `sample_seed`
    say.
    """
    if values["posterior"] == "mode":
        return vae.ends.handed_on(posterior.mode())
    sample = posterior.sample(torch.Generator().manual_seed(values["sample_seed"]))
    return vae.ends.handed_on(sample)


def settings_of(values: dict[str, Any], vae: Any = None) -> Settings:
    """The engine's settings for a node's widgets; what a node does not have is as usual.

    vae: one of ours that a node got, with which it comes whose result is meant, and which devices
    share its runs. Raises `SettingsError` that names the widget: linked values are seen here for
    the first time.
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
        reference=values.get("reference", "official") if vae is None else _reference(vae),
        parallel=device_names(values.get("devices") or "") or None if vae is None else _shared(vae),
    )


def _reference(vae: Any) -> Reference:
    """Whose result is meant by one of our VAEs."""
    return vae.exact_settings.reference


def _shared(vae: Any) -> Any:
    """The devices that share the runs of one of our VAEs; None where there is one alone."""
    return vae.exact_settings.parallel


def report(
    vae: Any, plan: Plan, seconds: float, notes: list[str], fitted: Fitted | None = None
) -> str:
    """What was planned, used and changed, for a person."""
    engine = vae.video_vae
    computed = f"{dtype_words(engine.device, engine.dtype)} on {engine.device}"
    lines = [
        plan.describe(),
        f"  VAE: {engine.family.title}, {computed}",
        f"  took {seconds:.1f} s",
    ]
    lines += [f"  note: {note}" for note in [*notes, *(fitted.notes if fitted else ())]]
    return "\n".join(lines)
