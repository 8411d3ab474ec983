"""The checker of the laws (DESIGN.md): every step and every program goes through it.

`assert_close` states "equal to rounding"; `encode_tiled` and `decode_tiled` give what the engine
makes of a clip; and `StepBench` runs single tiles of a single step on random stores, so that the
region law can be put to each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from vae_core import Settings, from_module
from vae_core.geometry.grid import Chunk, tiles
from vae_core.geometry.region import Extent, Region
from vae_core.planning.machine import Machine
from vae_core.planning.plan import Job, chunk_extent
from vae_core.planning.planner import make_plan
from vae_core.program.bands import bands_of
from vae_core.program.moments import Moments
from vae_core.program.parts import Attend
from vae_core.program.steps import SOURCE, Program, Step
from vae_core.running.execute import Execution
from vae_core.running.framewise import Framewise, Gathered
from vae_core.running.task import Pass
from vae_core.running.weights import Weights

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Largest difference allowed, as a share of the expected output's range."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference as a share of the expected range; the shapes have to agree."""
    assert found.shape == expected.shape, f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
    scale = (expected.max() - expected.min()).double()
    return float((found.double() - expected.double()).abs().max() / scale)


def assert_close(
    found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None
) -> None:
    """`found` equals `expected` to the tolerance of its dtype."""
    limit = TOLERANCE[expected.dtype] if tolerance is None else tolerance
    error = relative_error(found, expected)
    assert error <= limit, f"differs by {error:.3g} of the range; {limit:.3g} is allowed"


def encode_moments(module, video, **settings) -> torch.Tensor:
    """What the engine encodes: mean and log-variance side by side, as the reference's encoder gives
    them.
    """
    return from_module(module).encode(video, Settings(**settings)).moments


def decode_frames(module, latents, **settings) -> torch.Tensor:
    """What the engine decodes."""
    return from_module(module).decode(latents, Settings(**settings))


@dataclass
class StepBench:
    """One step of a program on random data, ready to compute tiles by themselves."""

    program: Program
    module: torch.nn.Module
    index: int
    chunk: Chunk
    source: Extent

    def __post_init__(self) -> None:
        torch.manual_seed(self.index)
        self.dtype = torch.float64
        self.extents = self.program.extents(self.source, self.chunk)
        self.weights = Weights(self.module, self.dtype, torch.device("cpu"))
        plan = make_plan(Job(self.program, 1, self.source, 8), Settings(), Machine(False, 2**24))
        self.engine = Execution(self.program, self.weights, plan)
        step = self.step
        self.stores = {
            s: self.random(self.program.stores[s].channels, self.chunk.held(s, self.extents[s]))
            for s in self.touched()
        }
        src = self.extents[step.src]
        self.cache = self.random(step.mix.in_channels, Extent(step.history, src.h, src.w))
        if self.chunk.first or not step.history:
            self.cache = None

    @property
    def step(self) -> Step:
        return self.program.steps[self.index]

    def touched(self) -> set[int]:
        residual = self.step.residual
        return {SOURCE, self.step.src, self.step.dst} | ({residual.store} if residual else set())

    @staticmethod
    def random(channels: int, extent: Extent) -> torch.Tensor:
        return torch.randn(1, channels, extent.t, extent.h, extent.w, dtype=torch.float64)

    def run(
        self, cells: Region, stores: dict[int, torch.Tensor], cache: torch.Tensor | None
    ) -> torch.Tensor:
        """What a tile of these cells writes, given stores and a cache that are left alone."""
        own = {index: store.clone() for index, store in stores.items()}
        at = Pass(self.chunk, 0, self.extents, own, dict(self.statistics()))
        with torch.inference_mode():
            task = self.engine.task(self.index, at)
            task.old_cache = cache
            self.engine.tile_runner.run(task, cells)
        return own[self.step.dst][(..., *self.placed(self.step.dst, self.core(cells)).slices)]

    def placed(self, store: int, region: Region) -> Region:
        """Where a region of the clip, or of the chunk, lies in what there is of a store."""
        return region.later(-self.chunk.origin(store))

    def statistics(self) -> list[tuple[int, Gathered]]:
        """Those of src, where it is normalised: mean 0 and variance 1."""
        norm, src = self.step.norm, self.step.src
        if norm is None:
            return []
        frames = range(self.extents[src].t)
        zeros = torch.zeros((len(frames) if norm.per_frame else 1, norm.groups), dtype=self.dtype)
        moments = Moments(1, zeros, zeros + 1)
        return [(src, Framewise({frames: moments}) if norm.per_frame else moments)]

    def core(self, cells: Region) -> Region:
        """The outputs that cells make."""
        return self.step.core(cells, self.extents[self.step.src], self.chunk)

    def cells(self, largest: Extent) -> list[Region]:
        """The tiles of the step, those left out that the mix is not asked for."""
        src = self.extents[self.step.src]
        extent = self.step.mixed_extent(src, self.chunk)
        return [
            tile.later(frames.start)
            for _, frames in self.step.runs(src, self.chunk)
            for tile in tiles(replace(extent, t=frames.size), largest)
        ]

    def poisoned(self, cells: Region) -> tuple[dict[int, torch.Tensor], torch.Tensor | None]:
        """Stores and cache with NaN everywhere outside of what the tile declares."""
        step, core = self.step, self.core(cells)
        keep: dict[int, list[Box]] = {index: [] for index in self.stores}
        keep[step.src] += self.read(cells)
        if step.residual:
            first = self.chunk.keeps_first(self.extents[step.residual.store].t)
            added = self.placed(step.residual.store, step.residual.source(core, first))
            keep[step.residual.store].append((ALL, added))
        if step.norm and step.norm.modulated:
            region = step.source_region(cells, self.extents[step.src], self.chunk)
            keep[SOURCE].append((ALL, self.latents(region)))
        stores = {
            index: _outside_is_nan(store, keep[index]) for index, store in self.stores.items()
        }
        seen = step.seen_extent(self.extents[step.src], self.chunk)
        declared = step.seen_region(cells).clip(seen)
        cache = self.cache
        if cache is not None:
            t = Extent(cache.shape[2], *cache.shape[3:]).region.t
            cache = _outside_is_nan(cache, [(ALL, Region(t, declared.h, declared.w))])
        return stores, cache

    def read(self, cells: Region) -> list[Box]:
        """What a tile declares of the store that it reads: the region around its cells, and where
        it attends, the keys and values of whole frames, or of its places, in all frames so far.
        """
        src, mix = self.extents[self.step.src], self.step.mix
        region = self.step.source_region(cells, src, self.chunk)
        region = self.placed(self.step.src, region)
        if not isinstance(mix, Attend):
            return [(ALL, region)]
        queries, keys = slice(None, mix.read_channels), slice(mix.read_channels, None)
        seen = replace(region.t, start=0) if mix.looks_back else region.t
        met = region if mix.column else src.region
        return [(queries, region), (keys, replace(met, t=seen))]

    def latents(self, region: Region) -> Region:
        """The latent cells that modulate `region`, worked out element by element."""
        here, latents = self.program.stores[self.step.src], self.program.stores[SOURCE]
        px, frames = latents.px // here.px, latents.frames // here.frames
        first = self.chunk.keeps_first(self.extents[self.step.src].t)
        cells = [
            {(i + (frames - 1) * first) // frames for i in range(region.t.start, region.t.stop)}
        ]
        cells += [{i // px for i in range(side.start, side.stop)} for side in (region.h, region.w)]
        return Region(*(type(region.t)(min(c), max(c) + 1) for c in cells))


Box = tuple[slice, Region]
"""Channels, and the elements of them."""

ALL = slice(None)


def _outside_is_nan(store: torch.Tensor, keep: list[Box]) -> torch.Tensor:
    poisoned = torch.full_like(store, float("nan"))
    for channels, region in keep:
        box = (slice(None), channels, *region.slices)
        poisoned[box] = store[box]
    return poisoned


def chunk_and_source(
    program: Program, which: str, height: int = 24, width: int = 32, index: int = 0
) -> tuple[Chunk, Extent]:
    """A small chunk at the clip's start (`"first"`) or in its middle (`"later"`), or a lone frame
    (`"still"`), with the extent of its source.

    index: of the step that it is for, which in a network that looks ahead comes late to its middle.
    """
    if program.looks_ahead:
        return _band_and_source(program, which == "later", height, width, index)
    settings = Settings(chunk_frames=8)
    px, frames = program.stores[SOURCE].px, program.stores[SOURCE].frames
    clip = 1 if which == "still" else 1 + 4 * program.ratios.frames if frames == 1 else 5
    job = Job(program, 1, Extent(clip, height // px, width // px), 8)
    plan = make_plan(job, settings, Machine(False, 2**24))
    chunk = plan.chunks[int(which == "later")]
    return chunk, chunk_extent(job, chunk)


def _band_and_source(
    program: Program, later: bool, height: int, width: int, index: int
) -> tuple[Chunk, Extent]:
    """A short clip as one band, or of a long one a band in which a step makes frames amidst."""
    px, dst = program.stores[SOURCE].px, program.steps[index].dst
    frames = 40 if later else 2
    bands = bands_of(program, frames, 2 if later else frames)
    made = ((band, band.band.cells[dst]) for band in bands if band.band)
    chunk = next(band for band, cells in made if cells.size and (cells.start or not later))
    return chunk, Extent(frames, height // px, width // px)
