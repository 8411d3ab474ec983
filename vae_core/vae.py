"""What does a user hold: a video VAE that encodes and decodes within bounds.

1. A module is lowered to an encoder or a decoder program whenever one is asked for, since a live
   module may have changed.
2. Each call checks its input, makes a plan, and hands chunk after chunk to the executor.
3. Results land where the input lives, in the VAE's dtype, whatever `torch.autocast` and
   `torch.set_default_device` say around the call.

Files, command lines and hosts are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from .families.family import Family, family_of
from .families.latent_statistics import LatentStatistics
from .families.loading import Architecture, LoadedModule, architecture_of_state
from .geometry.blend import blend_tiles
from .geometry.fitting import Fitted, fit
from .geometry.grid import Chunk
from .geometry.ratios import Ratios
from .geometry.region import Extent, Interval, Region
from .planning.chunking import chunks_of, meant
from .planning.plan import Job, Plan
from .posterior import MomentStream, Posterior
from .program.rewrites import as_referred, narrow_in_place, still_frame, told, unique_frames
from .program.steps import SOURCE, Program
from .running.graphs import outside_graphs
from .running.machines import runs_on, weights_for
from .running.parallel import execution_for, plan_for
from .running.stores import new_result, reserve
from .running.weights import Lender
from .settings import Layout, NormScope, Place, Placement, Settings, check_settings
from .streaming.carried_progress import CarriedProgress
from .streaming.encode_stream import check_count, encode_chunks_of, needs_whole_clip
from .streaming.fitted_frames import fitted_frames
from .streaming.frame_feed import FrameFeed, FrameRuns, is_frame_runs
from .streaming.values import (
    check_dtype,
    check_module,
    check_readable,
    check_tensor,
    check_trim,
    check_values,
    checked_device,
    checked_extent,
)

_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class VideoVAE:
    """A video VAE that runs in chunks and tiles, with the untiled network's result.

    In the shapes below r is `ratios.px`: 8, 16 for Wan 2.2, or 32 for LTX.
    module: a live one of a family that the engine carries; its parameters are used as they are.
    dtype, device: what is computed in, and on.
    loaded: the file that it came from; None for a live module.
    lender: what a host that keeps the parameters itself lends them through.
    timestep: how much noise a decoder is told of that wants to know; None for what is usual.
    """

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    loaded: LoadedModule | None = None
    lender: Lender | None = None
    timestep: float | None = None

    @property
    def family(self) -> Family:
        """Whose network the module is."""
        return family_of(self.module)

    @property
    def encoder(self) -> Program:
        """What the module's encoder stands for as it now is.

        Raises `LoweringError` where it has become something that the engine cannot run.
        """
        return self.family.lower_encoder(self.module)

    @property
    def decoder(self) -> Program:
        """What the module's decoder stands for as it now is.

        Raises `LoweringError` where it has become something that the engine cannot run.
        """
        program = self.family.lower_decoder(self.module)
        return program if self.timestep is None else told(program, self.timestep)

    @property
    def architecture(self) -> Architecture:
        """Widths, depth and counts, as the file or else the module's shapes say."""
        return (
            self.loaded.architecture
            if self.loaded
            else architecture_of_state(self.module.state_dict())
        )

    @property
    def scaling_factor(self) -> float | None:
        """The factor that diffusion models put on latents: as config.json gave it, since weights do
        not show it, or the one that all models of the family have.
        """
        said = self.loaded.scaling_factor if self.loaded else None
        return self.family.factor if said is None else said

    @property
    def latent_statistics(self) -> LatentStatistics | None:
        """Mean and deviation of each latent channel, as the module, its config or config.json has
        them; weights do not show them.
        """
        if self.loaded:
            return self.loaded.latent_statistics
        return LatentStatistics.of_module(self.module, self.latent_channels)

    @property
    def ratios(self) -> Ratios:
        """What one latent element stands for, in pixels and sample frames."""
        return self.decoder.ratios

    @property
    def sample_channels(self) -> int:
        """Channels of the frames that are encoded: 3, or 4 with opacity."""
        return self.encoder.stores[SOURCE].channels

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.decoder.stores[SOURCE].channels

    @outside_graphs
    def plan_encode(
        self, shape: Sequence[int], settings: Settings = _DEFAULT, *, probing: bool = False
    ) -> Plan:
        """How a video of `shape` [b, c, t, h, w] would be encoded; nothing is run.

        probing: whether to try the device first for what nobody has asked of it before, as a run
        does: seconds, once. Otherwise figures for that are careful ones.
        """
        check_settings(settings)
        program = as_referred(self.encoder, settings.reference)
        extent = checked_extent(shape, program.stores[SOURCE].channels, "a video [b, c, t, h, w]")
        fitted = fit(extent, meant(program, settings), program.ratios)
        return self._plan(program, int(shape[0]), fitted.network, settings, probing)

    @outside_graphs
    def plan_decode(
        self, shape: Sequence[int], settings: Settings = _DEFAULT, *, probing: bool = False
    ) -> Plan:
        """How latents of `shape` [b, c, n, h/r, w/r] would be decoded; see `plan_encode`."""
        check_settings(settings)
        r = self.ratios.px
        extent = checked_extent(shape, self.latent_channels, f"latents [b, c, n, h/{r}, w/{r}]")
        program = as_referred(self.decoder, settings.reference)
        return self._plan(program, int(shape[0]), extent, settings, probing)

    def latent_shape(
        self, shape: Sequence[int], settings: Settings = _DEFAULT
    ) -> tuple[int, int, int, int, int]:
        """What a video of `shape` [b, c, t, h, w] encodes to: [b, c, n, h/r, w/r]."""
        check_settings(settings)
        program = as_referred(self.encoder, settings.reference)
        extent = checked_extent(shape, program.stores[SOURCE].channels, "a video [b, c, t, h, w]")
        settings, px = meant(program, settings), program.ratios.px
        network = fit(extent, settings, program.ratios).network
        job = Job(program, shape[0], network, self.dtype.itemsize)
        frames = chunks_of(job, settings)[-1].target.stop
        return shape[0], self.latent_channels, frames, network.h // px, network.w // px

    def _plan(
        self, program: Program, batch: int, extent: Extent, settings: Settings, probing: bool
    ) -> Plan:
        program = self._rewritten(program, settings, extent.t)
        return plan_for(self, Job(program, batch, extent, self.dtype.itemsize), settings, probing)

    @staticmethod
    def _rewritten(program: Program, settings: Settings, frames: int) -> Program:
        """`program` without the work that can be left out in this layout, for so many frames.

        Where diffusers' parity rule lets a later chunk keep its first frame alone, the frames
        before it are no pair, and repeated frames have to be stored as they are.
        """
        if frames == 1 and not program.leads:
            return narrow_in_place(still_frame(program))
        odd_chunks = settings.layout is Layout.DIFFUSERS and settings.chunk_latent_frames % 2
        whole = settings.norm_scope is NormScope.CLIP
        return narrow_in_place(program if odd_chunks and not whole else unique_frames(program))

    @outside_graphs
    def encode(self, video: Tensor, settings: Settings = _DEFAULT) -> Posterior:
        """The posterior of `video` [b, 3, t, h, w], floating point pixels in [-1, 1].

        The result is on the video's device, in the VAE's dtype, [b, c, n, h/r, w/r], unscaled.
        Raises `InputError` for a wrong shape, dtype or values that are not finite, before anything
        is computed.
        """
        check_tensor(video, "a video")
        plan = self.plan_encode(video.shape, settings, probing=True)
        check_readable(video, runs_on(self, plan), "a video")
        check_values(video, "a video", "pixels / 127.5 - 1")
        fitted = fit(Extent(*video.shape[2:]), plan.settings, plan.job.program.ratios)
        moments = self._result(plan, plan.chunks[-1].target.stop, video.device)
        self._fill(plan, video, fitted, moments)
        return Posterior.from_moments(moments, fitted)

    @outside_graphs
    def decode(
        self, latents: Tensor, settings: Settings = _DEFAULT, trim: Extent | None = None
    ) -> Tensor:
        """The video [b, 3, t, h, w] in about [-1, 1] of unscaled `latents` [b, c, n, h/r, w/r].

        trim: the clip's own size where encoding padded it (`posterior.fitted.source`); never larger
        than the result. The result is on the latents' device, in the VAE's dtype. Raises
        `InputError` as `encode` does.
        """
        check_tensor(latents, "latents")
        check_trim(trim)
        plan = self.plan_decode(latents.shape, settings, probing=True)
        check_readable(latents, runs_on(self, plan), "latents")
        check_values(latents, "latents", "unscaled floating point latents")
        video = self._result(plan, plan.chunks[-1].target.stop, latents.device)
        self._fill(plan, latents, None, video)
        if trim is None:
            return video
        return video[:, :, : trim.t, : max(trim.h - plan.result_rows.start, 0), : trim.w]

    @outside_graphs
    def encode_stream(
        self,
        frames: Tensor | Iterable[Tensor],
        settings: Settings = _DEFAULT,
        frame_count: int | None = None,
    ) -> MomentStream:
        """The moments [b, 2c, n, h/r, w/r] of `frames`, chunk by chunk as they come; together they
        are what `encode(...).moments` holds.

        frames: a tensor [b, 3, t, h, w], or an iterable that gives sample frames [b, 3, h, w] or
            runs of them [b, 3, k, h, w], floating point pixels in [-1, 1]. Its length need not be
            known; no more than a chunk of it is held. Where statistics run over the clip, tiles
            are blended, or the layout is diffusers', all of it is collected first: in host memory,
            or where placement is `MMAP` in a temporary file.
        frame_count: how many frames are said to come, for progress and for refusing early what
            the frame policy refuses. Other counts do no harm.

        `fitted` of the result says what was done to the size, once it has ended. Raises
        `InputError` as `encode` does; what is wrong with a later frame, when it comes.
        """
        check_settings(settings)
        frame_count = check_count(frame_count)
        if isinstance(frames, Tensor):
            return MomentStream(self._encode_known(frames, settings))
        program = as_referred(self.encoder, settings.reference)
        settings, channels = meant(program, settings), program.stores[SOURCE].channels
        feed = FrameFeed(frames, channels)
        if needs_whole_clip(settings) or program.collects:
            return MomentStream(self._encode_collected(feed, settings))
        return MomentStream(encode_chunks_of(self, feed, settings, frame_count))

    def _encode_known(self, video: Tensor, settings: Settings) -> Iterator[Tensor | Fitted]:
        """The encoder's result for every chunk of `video`, and how it was fitted; checked at
        once.
        """
        check_tensor(video, "a video")
        plan = self.plan_encode(video.shape, settings, probing=True)
        check_readable(video, runs_on(self, plan), "a video")
        check_values(video, "a video", "pixels / 127.5 - 1")
        fitted = fit(Extent(*video.shape[2:]), plan.settings, plan.job.program.ratios)
        stream = self._run if plan.blend is None else self._run_blended
        return chain(stream(plan, video, fitted, None), (fitted,))

    def _encode_collected(self, feed: FrameFeed, settings: Settings) -> Iterator[Tensor | Fitted]:
        """As `_encode_known`, of all that `feed` gives."""
        place = Place.DISK if settings.placement is Placement.MMAP else Place.HOST
        yield from self._encode_known(feed.collect(place), settings)

    @outside_graphs
    def decode_stream(
        self, latents: Tensor | FrameRuns, settings: Settings = _DEFAULT
    ) -> Iterator[Tensor]:
        """Finished frames [b, 3, t, h, w], chunk by chunk; together they are what `decode`
        returns. Where tiling is `BLEND` the first one comes when all are finished.

        latents: a tensor, or a source that is read chunk by chunk (see `frame_feed.FrameRuns`).
        """
        if isinstance(latents, Tensor) or not is_frame_runs(latents):
            check_tensor(latents, "latents")
        plan = self.plan_decode(latents.shape, settings, probing=True)
        check_readable(latents, runs_on(self, plan), "latents")
        if isinstance(latents, Tensor):
            check_values(latents, "latents", "unscaled floating point latents")
        if plan.blend is None:
            return self._run(plan, latents, None, None)
        return self._run_blended(plan, _read(latents, Interval(0, plan.job.source.t)), None, None)

    def _result(self, plan: Plan, frames: int, device: torch.device) -> Tensor:
        """An unwritten result of `frames` frames."""
        return new_result(plan, frames, self.dtype, device)

    def _fill(self, plan: Plan, source: Tensor, fitted: Fitted | None, result: Tensor) -> None:
        """Run all of `plan` into `result`."""
        stream = self._run if plan.blend is None else self._run_blended
        for _ in stream(plan, source, fitted, result):
            pass

    def _run_blended(
        self, plan: Plan, source: Tensor, fitted: Fitted | None, result: Tensor | None
    ) -> Iterator[Tensor]:
        """As `_run`, crop after crop, each of them for the whole clip."""
        assert plan.blend
        frames = plan.chunks[-1].target.stop
        whole = self._result(plan, frames, source.device) if result is None else result
        carry = CarriedProgress(plan.settings.on_progress)

        def run(crop: Region) -> Tensor:
            part = plan.for_crop(crop.extent)
            settings = replace(plan.settings, on_progress=carry.callback())
            part = replace(part, settings=settings)
            if fitted is None:
                read, own = source[(..., *crop.slices)], None
            else:
                h, w, own = fitted.crop(crop.h, crop.w)
                read = source[..., h.start : h.stop, w.start : w.stop]
            out = self._result(part, frames, source.device)
            for _ in self._run(part, read, own, out):
                pass
            return out

        blend_tiles(plan.blend, run, whole)
        yield from (_read(whole, chunk.target) for chunk in plan.chunks if chunk.target.size)

    def _run(
        self, plan: Plan, source: Tensor | FrameRuns, fitted: Fitted | None, result: Tensor | None
    ) -> Iterator[Tensor]:
        """The result of each chunk: a part of `result` where there is one, else a tensor of its
        own.
        """
        reserve(plan)
        weights = weights_for(self, plan)
        with closing(execution_for(plan, weights, plan.settings.on_progress)) as execution:
            last, crosses = len(plan.chunks) - 1, plan.job.program.barrier is not None
            for index, chunk in enumerate(plan.chunks if crosses else ()):
                execution.gather(chunk, _fitted(source, fitted, chunk), last=index == last)
            for index, chunk in enumerate(plan.chunks):
                nothing = torch.empty(plan.job.batch, 0, 0, 0, 0, device=source.device)
                read = nothing if crosses else _fitted(source, fitted, chunk)
                out = (
                    self._result(plan, chunk.target.size, source.device)
                    if result is None
                    else _read(result, chunk.target)
                )
                execution.run(chunk, read, out, last=index == last)
                yield from (out,) if chunk.target.size else ()  # nothing comes of first bands


def _fitted(source: Tensor | FrameRuns, fitted: Fitted | None, chunk: Chunk) -> Tensor:
    """What a chunk reads of the source."""
    if fitted is not None and isinstance(source, Tensor):
        return fitted_frames(fitted, source, chunk.source)
    return _read(source, chunk.source)


def _read(x: Tensor | FrameRuns, frames: Interval) -> Tensor:
    return x[:, :, frames.start : frames.stop] if isinstance(x, Tensor) else x.take(frames)


def from_module(
    module: nn.Module,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    loaded: LoadedModule | None = None,
) -> VideoVAE:
    """A `VideoVAE` over a live module of a family that the engine carries; parameters are shared.

    dtype, device: to compute in and on; by default those of the module's own parameters.
    loaded: the file that the module came from, for what only a file knows.
    Raises `LoweringError` with a module path where the module is something else, and
    `SettingsError` for a dtype or a device that there is not.
    """
    check_dtype(dtype)
    where = None if device is None else checked_device(device)
    check_module(module)
    family = family_of(module)
    family.lower_encoder(module)
    family.lower_decoder(module)
    parameter = next(module.parameters())
    return VideoVAE(module, dtype or parameter.dtype, where or parameter.device, loaded)
