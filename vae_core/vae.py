"""What does a user hold: a video VAE that encodes and decodes within bounds.

1. A module is lowered once to an encoder and a decoder program.
2. Each call checks its input, makes a plan, and hands chunk after chunk to the executor.
3. Results land where the input lives, in the VAE's dtype.

Files, command lines and hosts are not known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import InputError
from .execute import Execution
from .fitting import Fitted, fit
from .grid import Chunk
from .lowering import lower_decoder, lower_encoder
from .planner import Job, Plan, make_plan
from .posterior import Posterior
from .program import SOURCE, Program
from .region import Extent, Interval
from .settings import SPATIAL_RATIO, Layout, Settings
from .weights import Weights

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class VideoVAE:
    """A CogVideoX video VAE that runs in chunks and tiles, with the untiled network's result.

    module: a live `AutoencoderKLCogVideoX`; its parameters are used where they are.
    dtype, device: what is computed in, and on.
    """

    module: nn.Module
    dtype: torch.dtype
    device: torch.device
    encoder: Program
    decoder: Program

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return self.decoder.stores[SOURCE].channels

    def plan_encode(self, shape: Sequence[int], settings: Settings = _DEFAULT) -> Plan:
        """How a video of `shape` [b, c, t, h, w] would be encoded; nothing is run."""
        extent = _checked_shape(shape, self.encoder, "a video [b, c, t, h, w]")
        return self._plan(self.encoder, shape[0], fit(extent, settings).network, settings)

    def plan_decode(self, shape: Sequence[int], settings: Settings = _DEFAULT) -> Plan:
        """How latents of `shape` [b, c, n, h/8, w/8] would be decoded; nothing is run."""
        extent = _checked_shape(shape, self.decoder, "latents [b, c, n, h/8, w/8]")
        return self._plan(self.decoder, shape[0], extent, settings)

    def _plan(self, program: Program, batch: int, extent: Extent, settings: Settings) -> Plan:
        return make_plan(Job(program, batch, extent, self.dtype.itemsize), settings)

    def encode(self, video: Tensor, settings: Settings = _DEFAULT) -> Posterior:
        """The posterior of `video` [b, 3, t, h, w], floating point pixels in [-1, 1].

        The result is on the video's device, in the VAE's dtype, [b, c, n, h/8, w/8], unscaled. Raises `InputError` for
        a wrong shape, dtype or values that are not finite, before anything is computed.
        """
        plan = self.plan_encode(video.shape, settings)
        _check_values(video, "a video", "pixels / 127.5 - 1")
        fitted = fit(Extent(*video.shape[2:]), settings)
        moments = self._result(plan, video)
        for chunk, out in self._run(plan, video, fitted):
            moments[:, :, chunk.target.start : chunk.target.stop] = out
        return Posterior.from_moments(moments, fitted)

    def decode(self, latents: Tensor, settings: Settings = _DEFAULT, trim: Extent | None = None) -> Tensor:
        """The video [b, 3, t, h, w] in about [-1, 1] of unscaled `latents` [b, c, n, h/8, w/8].

        trim: the clip's own size where encoding padded it (`posterior.fitted.source`); never larger than the result.
        The result is on the latents' device, in the VAE's dtype. Raises `InputError` as `encode` does.
        """
        plan = self.plan_decode(latents.shape, settings)
        _check_values(latents, "latents", "unscaled floating point latents")
        video = self._result(plan, latents)
        for chunk, out in self._run(plan, latents, None):
            video[:, :, chunk.target.start : chunk.target.stop] = out
        return video if trim is None else video[:, :, : trim.t, : trim.h, : trim.w]

    def decode_stream(self, latents: Tensor, settings: Settings = _DEFAULT) -> Iterator[Tensor]:
        """Finished frames [b, 3, t, h, w], chunk by chunk; together they are what `decode` returns."""
        plan = self.plan_decode(latents.shape, settings)
        _check_values(latents, "latents", "unscaled floating point latents")
        return (out for _, out in self._run(plan, latents, None))

    def _result(self, plan: Plan, like: Tensor) -> Tensor:
        out = _target_extent(plan.job.program, plan.chunks[-1].target.stop, plan.job.source)
        shape = (like.shape[0], plan.job.program.stores[plan.job.program.sink].channels, out.t, out.h, out.w)
        return torch.empty(shape, dtype=self.dtype, device=like.device)

    def _run(self, plan: Plan, source: Tensor, fitted: Fitted | None) -> Iterator[tuple[Chunk, Tensor]]:
        """Each chunk with its finished result."""
        job, weights = plan.job, Weights(self.module, self.dtype, self.device)
        with closing(Execution(job.program, weights, plan, plan.settings.on_progress)) as execution:
            for index, chunk in enumerate(plan.chunks):
                read = _read(source, chunk.source) if fitted is None else fitted.take(source, chunk.source)
                sink = _target_extent(job.program, chunk.target.size, job.source)
                channels = job.program.stores[job.program.sink].channels
                out = torch.empty((job.batch, channels, sink.t, sink.h, sink.w), dtype=self.dtype, device=source.device)
                execution.run(chunk, read, out, last=index == len(plan.chunks) - 1)
                yield chunk, out


def _read(source: Tensor, frames: Interval) -> Tensor:
    return source[:, :, frames.start : frames.stop]


def _target_extent(program: Program, frames: int, source: Extent) -> Extent:
    """The result's extent, given its frames."""
    from_px, to_px = program.stores[SOURCE].px, program.stores[program.sink].px
    return Extent(frames, source.h * from_px // to_px, source.w * from_px // to_px)


def _checked_shape(shape: Sequence[int], program: Program, what: str) -> Extent:
    """(t, h, w) of a shape that the program takes."""
    channels = program.stores[SOURCE].channels
    if len(shape) != 5:
        raise InputError(f"{what} needs five dimensions; got {len(shape)}: {tuple(shape)}. Add the missing ones, e.g. batch.")
    if min(shape) < 1:
        raise InputError(f"{what} needs at least one element in every dimension; got {tuple(shape)}.")
    if shape[1] != channels:
        raise InputError(
            f"{what} needs {channels} channels in dimension 1 for this VAE; got {shape[1]} in {tuple(shape)}."
            " Another channel count means another model, or another order of dimensions."
        )
    return Extent(*shape[2:])


def _check_values(x: Tensor, what: str, remedy: str) -> None:
    """`InputError` unless x is floating point and finite; a tensor without readable values is taken as it is."""
    if x.dtype not in _DTYPES:
        raise InputError(f"{what} must be float32, float64, bfloat16 or float16; got {x.dtype}. Convert it first: {remedy}.")
    if type(x) not in (Tensor, nn.Parameter) or x.is_meta:
        return
    for frame in range(x.shape[2]):
        low, high = torch.aminmax(x[:, :, frame])
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise InputError(f"{what} holds NaN or infinite values, first in frame {frame}; the network would spread them.")


def from_module(module: nn.Module, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> VideoVAE:
    """A `VideoVAE` over a live diffusers or ComfyUI `AutoencoderKLCogVideoX`, whose parameters are shared, not copied.

    dtype, device: to compute in and on; by default those of the module's own parameters.
    Raises `LoweringError` with a module path where the module is something else.
    """
    encoder, decoder = lower_encoder(module), lower_decoder(module)
    parameter = next(module.parameters())
    where = torch.device(device) if device is not None else parameter.device
    return VideoVAE(module, dtype or parameter.dtype, where, encoder, decoder)


__all__ = ["SPATIAL_RATIO", "Layout", "VideoVAE", "from_module"]
