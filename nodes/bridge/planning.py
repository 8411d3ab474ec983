"""What would a run take, for a network that nobody has loaded?

1. A network without weights is lowered once for each kind that is known by name.
2. Memory is decided by the first chunk, one in the middle and the last ones, and in blend mode by
   one crop. So a long clip is planned as a short one with the same kinds of chunks, a blended
   picture as one of its crops, and work and tiles are multiplied. Numbers are those of
   `vae_core`'s own plan (tests/test_routes.py); they come after the same time for every size.
3. Where nothing fits, the first change of settings that does is found by planning again.

Nothing is loaded and no weight is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from importlib.util import find_spec
from typing import Any

import torch

from ...vae_core import BudgetError, Extent, Settings, VaeCoreError, VideoVAE, from_module
from ...vae_core.families.family import HUNYUAN, LTX, MOCHI, SEEDVR2, WAN_2_2
from ...vae_core.geometry.blend import USUAL_TILE_PX, blend_geometry
from ...vae_core.geometry.fitting import fit
from ...vae_core.geometry.ratios import Ratios
from ...vae_core.planning.chunking import meant, takes_whole
from ...vae_core.planning.plan import Plan, chunk_extent, size_text
from ...vae_core.program.known import operations_of
from ...vae_core.program.parts import Attend
from ...vae_core.program.rewrites import as_referred
from ...vae_core.program.steps import SOURCE, Program
from . import card, host
from .running import settings_of
from .widgets import SHORTEST_CHUNK, usual_overlap

COGVIDEOX: dict[str, dict[str, Any]] = {
    "full": {"block_out_channels": (128, 256, 256, 512), "layers_per_block": 3},
    "tiny": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
}
"""The CogVideoX VAE, and the one that ships with this pack."""

WAN: dict[str, int] = {"wan": 96, "tiny_wan": 14}
"""Channels beside the pictures: the VAE of Wan 2.1 and Qwen-Image, and the one that ships with this
pack.
"""

HUNYUAN_1_5: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 1024, 1024],
    "in_channels": 3,
    "out_channels": 3,
    "num_res_blocks": 2,
    "ffactor_spatial": 16,
    "ffactor_temporal": 4,
    "z_channels": 32,
}
"""What the host's own class is told for the VAE of HunyuanVideo 1.5."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_GIB = 2**30
_ENOUGH_CHUNKS = 9
"""More than there are kinds: the first, those with a past and a future, and what remains."""


@cache
def network(name: str) -> torch.nn.Module:
    """The network called `name`, without weights; the host's own class where it has one, since
    importing diffusers takes seconds.
    """
    own = {family.name: family.published for family in (HUNYUAN, SEEDVR2, MOCHI)}
    if name in own:
        with torch.device("meta"):
            return own[name].network()
    if name == "wan22":
        return _wan_2_2(WAN_2_2.published.numbers)
    if name == "ltx":
        return _ltx()
    if name == "hunyuan15":
        return _hunyuan_1_5()
    return _wan(WAN[name]) if name in WAN else _cogvideox(COGVIDEOX[name])


def _wan(channels: int) -> torch.nn.Module:
    native = host.native_network("wan.vae", "WanVAE")
    with torch.device("meta"):
        if native is not None:
            return native(dim=channels, z_dim=16, temperal_downsample=[False, True, True])
        from diffusers import AutoencoderKLWan

        return AutoencoderKLWan(base_dim=channels, z_dim=16)


def _wan_2_2(numbers: Mapping[str, Any]) -> torch.nn.Module:
    native = host.native_network("wan.vae2_2", "WanVAE")
    with torch.device("meta"):
        if native is not None:
            return native(
                dim=numbers["base_dim"],
                dec_dim=numbers["decoder_base_dim"],
                z_dim=numbers["z_dim"],
                temperal_downsample=[False, True, True],
            )
        from diffusers import AutoencoderKLWan

        return AutoencoderKLWan(**numbers)


def _ltx() -> torch.nn.Module:
    native = host.native_network("lightricks.vae.causal_video_autoencoder", "VideoVAE")
    with torch.device("meta"):
        if native is not None:
            return native(version=2)
        from diffusers import AutoencoderKLLTX2Video

        return AutoencoderKLLTX2Video(**LTX.published.numbers)


def _hunyuan_1_5() -> torch.nn.Module:
    native = host.native_network("models.autoencoder", "AutoencodingEngine")
    place = "comfy.ldm.hunyuan_video.vae_refiner"
    with torch.device("meta"):
        if native is not None and find_spec(place) is not None:
            ends = {
                f"{name.lower()}_config": {"target": f"{place}.{name}", "params": HUNYUAN_1_5}
                for name in ("Encoder", "Decoder")
            }
            empty = {"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"}
            return native(regularizer_config=empty, **ends)
        from diffusers import AutoencoderKLHunyuanVideo15

        return AutoencoderKLHunyuanVideo15()


def _cogvideox(widths: dict[str, Any]) -> torch.nn.Module:
    native = host.native_network("cogvideo.vae", "AutoencoderKLCogVideoX")
    with torch.device("meta"):
        if native is not None:
            return native(latent_channels=16, **widths)
        from diffusers import AutoencoderKLCogVideoX

        return AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            latent_channels=16,
            **widths,
        )


class Unmade(VideoVAE):
    """A VAE without weights, which nobody changes: its programs are the same whenever they are
    asked for, and so is the size of the weights.
    """

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes that the weights of this network have in the VAE's dtype."""
        return sum(p.numel() for p in self.module.parameters()) * self.dtype.itemsize

    @cached_property
    def encoder(self) -> Program:
        return super().encoder

    @cached_property
    def decoder(self) -> Program:
        return super().decoder


@cache
def engine(name: str, dtype: torch.dtype, device: torch.device) -> Unmade:
    """`network(name)` lowered, to be planned with; it has no weights and cannot run."""
    vae = from_module(network(name), dtype, device)
    return Unmade(vae.module, vae.dtype, vae.device)


@dataclass(frozen=True, slots=True)
class Totals:
    """A plan and what it comes to for the clip that was asked for.

    plan: of a clip with the same kinds of chunks, and of one crop where tiles are blended.
    chunks: how many there are. crops: that go through the network one by one.
    tiles, operations, moved_bytes, copied_bytes: of the whole clip.
    untiled_operations: without blended tiles.
    """

    plan: Plan
    chunks: int
    crops: int
    tiles: int
    operations: int
    untiled_operations: int
    moved_bytes: int
    copied_bytes: int


def plan_totals(vae: VideoVAE, operation: str, size: Extent, settings: Settings) -> Totals:
    """What encoding or decoding a clip of `size` sample frames and pixels comes to.

    Raises what planning raises: `BudgetError`, `SettingsError`, `InputError`.
    """
    program = vae.encoder if operation == "encode" else vae.decoder
    program = as_referred(program, settings.reference)
    settings = meant(program, settings)
    source = _source(vae, operation, size, settings)
    crop, crops = _crop(program, source, settings)
    plan, chunks, left_out = _short_plan(vae, operation, program, crop, settings)
    short = replace(source, t=plan.job.source.t)
    middle = plan.chunks[min(1, len(plan.chunks) - 1)]
    job, one = plan.job, replace(plan, chunks=(middle,))
    work = partial(operations_of, job.program)
    traffic = plan.traffic[min(1, len(plan.chunks) - 1)]
    untiled = replace(job, source=short)
    whole = sum(work(chunk_extent(untiled, chunk), chunk) for chunk in plan.chunks)
    whole += program.outward_operations(short, plan.chunks)
    return Totals(
        plan=plan,
        chunks=chunks,
        crops=crops,
        tiles=crops * (plan.tile_count() + left_out * one.tile_count()),
        operations=crops * (plan.operations + left_out * work(chunk_extent(job, middle), middle)),
        untiled_operations=whole + left_out * work(chunk_extent(untiled, middle), middle),
        moved_bytes=plan.moved_bytes + left_out * traffic.moved_bytes,
        copied_bytes=plan.copied_bytes + left_out * traffic.copied_bytes,
    )


def _source(vae: VideoVAE, operation: str, size: Extent, settings: Settings) -> Extent:
    """What goes into the network for a clip."""
    if operation == "encode":
        return fit(size, settings, vae.ratios).network
    sides = (-(-side // vae.ratios.px) for side in (size.h, size.w))
    return Extent(vae.ratios.latent_frames(size.t), *sides)


def _short_plan(
    vae: VideoVAE, operation: str, program: Program, source: Extent, settings: Settings
) -> tuple[Plan, int, int]:
    """The plan of as many chunks of `source` as there are kinds, how many it has in all, and how
    many of those in the middle were left out.

    The planner may take shorter chunks than it was asked for: what was left out is so many of
    these, and where it is not a whole number of them the clip is planned again.
    Where a network looks ahead there are bands, no two of which are alike: nothing is left out.
    """
    if program.looks_ahead:
        plan = _planned(vae, operation, source, settings)
        return plan, len(plan.chunks), 0
    ratio = 1 if operation == "encode" else vae.ratios.frames
    nothing = takes_whole(program, settings) or _looks_outward(program)
    while True:
        length = max(settings.chunk_frames // ratio, 1)
        chunks = max(-(-(source.t - 1) // length), 1)
        left_out = 0 if nothing else max(chunks - _ENOUGH_CHUNKS, 0) * length
        plan = _planned(vae, operation, replace(source, t=source.t - left_out), settings)
        taken = plan.settings.chunk_frames // ratio
        if taken <= length and left_out % taken == 0:
            return plan, len(plan.chunks) + left_out // taken, left_out // taken
        settings = replace(settings, chunk_frames=plan.settings.chunk_frames)


def _looks_outward(program: Program) -> bool:
    """Whether chunks keep something for others, the more of it the longer the clip."""
    mixes = (step.mix for step in program.steps)
    return any(isinstance(mix, Attend) and mix.looks_outward for mix in mixes)


def _crop(program: Program, source: Extent, settings: Settings) -> tuple[Extent, int]:
    """The crop that goes through the network by itself, and how many of them there are."""
    if settings.tiling.value != "blend":
        return source, 1
    from_px, to_px = (program.stores[name].px for name in (SOURCE, program.sink))
    geometry = blend_geometry(source, settings, from_px, to_px)
    return geometry.largest, geometry.count


def _planned(vae: VideoVAE, operation: str, source: Extent, settings: Settings) -> Plan:
    shape = (source.t, source.h, source.w)
    if operation == "encode":
        return vae.plan_encode((1, vae.sample_channels, *shape), settings)
    return vae.plan_decode((1, vae.latent_channels, *shape), settings)


def answer_for(request: dict[str, Any]) -> dict[str, Any]:
    """What the client shows of a checked request; see `routes.WIDGETS` for what it holds."""
    card.keep_probes()
    memory = card.device_memory()
    dtype = DTYPES.get(request["dtype"]) or host.vae_dtype()
    vae = engine(request["network"], dtype, memory.device)
    size = Extent(request["frames"], request["height"], request["width"])
    common = {
        "device": memory.device.type,
        "free_bytes": memory.free_bytes,
        "total_bytes": memory.total_bytes,
        "weight_bytes": vae.weight_bytes,
    }
    try:
        settings = _asked(memory, request)
        totals = plan_totals(vae, request["operation"], size, settings)
    except VaeCoreError as error:
        fix = _fix(vae, memory, request, error)
        smallest = getattr(error, "smallest_bytes", None)
        return {**common, "fits": False, "error": str(error), "smallest": smallest, "fix": fix}
    known = {"ratios": asdict(vae.ratios), "notes": _notes(vae.ratios, request["operation"], size)}
    return {**common, "fits": True, **_shown(totals, size), **known}


def _asked(memory: card.DeviceMemory, request: dict[str, Any]) -> Settings:
    """What a request's widgets mean: with what is free as the budget where none was given, and for
    as many devices as share the run.
    """
    settings = settings_of(request)
    if request["ranks"] > 1:
        settings = replace(settings, parallel=request["ranks"])
    if settings.budget_bytes is None and memory.apart:
        return replace(settings, budget_bytes=card.usable(memory.free_bytes))
    return settings


def _shown(totals: Totals, size: Extent) -> dict[str, Any]:
    plan, worst = totals.plan, totals.plan.worst
    tile_h, tile_w = plan.tile_px()
    return {
        "peak_bytes": plan.peak_bytes,
        "store_bytes": worst.store_bytes,
        "cache_bytes": worst.cache_bytes,
        "workspace_bytes": worst.workspace_bytes,
        "far_bytes": plan.far_bytes,
        "moved_bytes": totals.moved_bytes,
        "placement": plan.placement.value,
        "ranks": plan.settings.ranks,
        "seconds": _seconds(totals),
        "levels": [[level.px, level.near_bytes, level.far_bytes] for level in plan.levels()],
        "worst_step": worst.path,
        "chunks": totals.chunks,
        "chunk_frames": [chunk.source.size for chunk in plan.chunks[:2]],
        "last_chunk_frames": plan.chunks[-1].source.size,
        "crops": totals.crops,
        "tiles": totals.tiles,
        "tile_px": [min(tile_h, size.h), min(tile_w, size.w)],
        "operations": totals.operations,
        "arithmetic": round(totals.operations / totals.untiled_operations, 3),
        "words": _words(totals),
    }


def _seconds(totals: Totals) -> float | None:
    """How long all of it is thought to take; None on a processor."""
    rates, moved = totals.plan.rates, totals.crops * (totals.moved_bytes + totals.copied_bytes)
    return rates.seconds(totals.operations, moved) if rates else None


def _words(totals: Totals) -> str:
    """The plan as `vae_core` puts it; nothing where it would be that of a part."""
    plan = totals.plan
    return plan.describe() if totals.crops == 1 and totals.chunks == len(plan.chunks) else ""


def _notes(ratios: Ratios, operation: str, size: Extent) -> list[str]:
    """What happens to sizes that the network cannot take."""
    found = []
    if (size.t - 1) % ratios.frames:
        found.append("frames")
    if operation == "encode" and (size.h % ratios.px or size.w % ratios.px):
        found.append("size")
    return found


def _fix(
    vae: VideoVAE, memory: card.DeviceMemory, request: dict[str, Any], error: Exception
) -> dict[str, Any] | None:
    """The first change of widgets that can be run, or None."""
    size = Extent(request["frames"], request["height"], request["width"])
    for change in _changes(request, error, vae.ratios):
        try:
            settings = _asked(memory, {**request, **change})
            totals = plan_totals(vae, request["operation"], size, settings)
        except VaeCoreError:
            continue
        return {"widgets": change, "peak": size_text(totals.plan.peak_bytes)}
    return None


def _changes(request: dict[str, Any], error: Exception, ratios: Ratios) -> Iterator[dict[str, Any]]:
    """Changes that may help, the mildest first: none of those tried first changes the picture."""
    if isinstance(error, BudgetError):
        if request["memory_budget"]:
            yield {"memory_budget": math.ceil(error.smallest_bytes / _GIB * 4) / 4}
        yield {"tiling": "exact", "tile_size": 0}
        shortest = {"chunk_size": SHORTEST_CHUNK, "tiling": "exact", "tile_size": 0}
        yield shortest
        yield {"norm_scope": "chunk", **shortest}
        return
    yield {"overlap": usual_overlap(request["tile_size"] or USUAL_TILE_PX, ratios.px)}
    yield {"frame_policy": "pad", "size_policy": "pad"}
    yield {"tiling": "exact"}
