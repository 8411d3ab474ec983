"""How is a clip encoded, decoded and reported on?

1. Check every name, setting and file; load the VAE.
2. Encode from the file; decode into the file that was asked for, if any, comparing each frame with
   the source as it comes. Memory does not grow with the clip, but for its latents.
3. Once more without tiles, to compare: for that the decoded clip is kept, unless left out.
4. Write what else was asked for: report, contact sheet, figures.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vae_core

from ..errors import counted
from ..geometry.fitting import Fitted
from ..media.files import check_distinct, check_output, whole_file
from ..media.video import Frame, VideoInfo, VideoSource, open_video
from ..media.video_writing import VideoOptions, VideoWriter, open_writer
from ..posterior import Posterior
from ..running.devices import dtype_words
from ..settings import Settings, Tiling
from ..streaming.frame_feed import FrameRuns
from ..vae import VideoVAE
from .contact_sheet import chosen_frames, draw_sheet
from .file_streams import decode_video, encode_video
from .launch import writes
from .options import (
    json_text,
    latents_of,
    load_for,
    resize_of,
    say,
    selection_of,
    settings_of,
    timed,
    vae_name,
    video_options,
    word,
)
from .peak_memory import peak_bytes, peak_kind, start_peak
from .report import Difference, FrameErrors, Report


def _open(args: Namespace) -> VideoSource:
    """The chosen frames of the clip, from the start. Raises `VideoError`."""
    return open_video(args.clip, selection_of(args), resize_of(args))


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A clip's latents [1, c, n, h/r, w/r], and what is known of it. seconds: that it took."""

    latents: Tensor
    fitted: Fitted
    info: VideoInfo
    notes: tuple[str, ...]
    seconds: float


def _encode(args: Namespace, vae: VideoVAE, settings: Settings) -> _Encoded:
    chunks: list[Tensor] = []
    label = "encode" if settings.tiling is not Tiling.OFF else "encode untiled"
    with _open(args) as video:
        work = partial(encode_video, vae, video, chunks.append)
        fitted, seconds = timed(work, label, settings, args.quiet)
    posterior = Posterior.from_moments(torch.cat(chunks, dim=2), fitted)
    return _Encoded(latents_of(args, posterior), fitted, video.info, video.notes, seconds)


@dataclass(slots=True)
class _Judge:
    """Takes decoded frames one by one: compares each with the source's, and passes it on.

    source: the frames to compare with. wanted: numbers of those that the contact sheet shows.
    pairs: these, as source and reconstruction.
    """

    source: Iterator[Frame]
    wanted: frozenset[int]
    writer: VideoWriter | None
    errors: FrameErrors = field(default_factory=FrameErrors)
    pairs: list[tuple[Frame, Frame]] = field(default_factory=list[tuple[Frame, Frame]])

    def add(self, frame: Frame) -> None:
        """The next decoded frame, uint8 [h, w, 3]; never larger than the source's."""
        before = next(self.source)[: frame.shape[0], : frame.shape[1]]
        if self.errors.frames in self.wanted:
            self.pairs.append((before, frame))
        self.errors.add(before, frame)
        if self.writer is not None:
            self.writer.add(frame)


@dataclass(slots=True)
class _Recorder:
    """Decodes as `vae` does, and keeps what comes if that is wanted. frames: that came."""

    vae: VideoVAE
    keeps: bool
    chunks: list[Tensor] = field(default_factory=list[Tensor])

    def decode_stream(self, latents: Tensor | FrameRuns, settings: Settings) -> Iterator[Tensor]:
        """See `VideoVAE.decode_stream`."""
        for frames in self.vae.decode_stream(latents, settings):
            if self.keeps:
                self.chunks.append(frames)
            yield frames


@dataclass(frozen=True, slots=True)
class _Decoded:
    """What came of decoding: figures and pictures, the clip itself where it is kept."""

    judge: _Judge
    chunks: list[Tensor]
    size: tuple[int, int, int]
    network_frames: int
    seconds: float


@contextmanager
def _judging(
    args: Namespace, encoded: _Encoded, frames: int, options: VideoOptions
) -> Generator[_Judge]:
    """What takes the decoded frames; the file that was asked for appears when it ends well."""
    with ExitStack() as stack:
        source = iter(stack.enter_context(_open(args)))
        writer = None
        if args.output is not None:
            opened = open_writer(args.output, encoded.info.fps, options)
            writer = stack.enter_context(opened)
        yield _Judge(source, frozenset(chosen_frames(frames)), writer)


def _decode(args: Namespace, vae: VideoVAE, encoded: _Encoded, options: VideoOptions) -> _Decoded:
    settings = settings_of(args)
    plan = vae.plan_decode(encoded.latents.shape, settings)
    network_frames = plan.chunks[-1].target.stop
    frames = min(network_frames, encoded.fitted.source.t)
    recorder = _Recorder(vae, keeps=not args.no_compare and settings.tiling is not Tiling.OFF)
    with _judging(args, encoded, frames, options) as judge:
        work = partial(decode_video, recorder, encoded.latents, judge, encoded.fitted.source)
        size, seconds = timed(work, "decode", settings, args.quiet)
    return _Decoded(judge, recorder.chunks, size, network_frames, seconds)


def _differences(
    args: Namespace, vae: VideoVAE, encoded: _Encoded, decoded: _Decoded
) -> tuple[Difference, Difference] | tuple[None, None]:
    """How far tiling moved latents and pixels, if compared.

    Each from one input: the untiled decode starts from the tiled encode's latents.
    """
    if not decoded.chunks:
        return None, None
    settings = replace(settings_of(args), tiling=Tiling.OFF)
    latents = _apart(encoded.latents, _encode(args, vae, settings).latents)
    decode = partial(vae.decode, encoded.latents)
    whole, _ = timed(decode, "decode untiled", settings, args.quiet)
    return latents, _apart(torch.cat(decoded.chunks, dim=2), whole)


def _apart(result: Tensor, reference: Tensor) -> Difference:
    value_range = float(reference.max()) - float(reference.min())
    return Difference(float((result - reference).abs().max()), value_range)


def _notes(encoded: _Encoded, decoded: _Decoded) -> tuple[str, ...]:
    """What a reader should be told."""
    notes = encoded.notes + encoded.fitted.notes
    if decoded.network_frames == encoded.fitted.network.t:
        return notes
    return (
        *notes,
        f"Decoding gave {counted(decoded.network_frames, 'frame')} for {encoded.fitted.network.t};"
        f" the first {decoded.size[0]} were compared.",
    )


def _plans(vae: VideoVAE, encoded: _Encoded, settings: Settings) -> dict[str, Any]:
    source = encoded.fitted.source
    shape = (1, vae.sample_channels, source.t, source.h, source.w)
    return {
        "encode": vae.plan_encode(shape, settings).as_dict(),
        "decode": vae.plan_decode(encoded.latents.shape, settings).as_dict(),
    }


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where a round trip writes; None for what is not wanted."""

    clip: Path | None
    sheet: Path | None
    json: Path | None

    @classmethod
    def of(cls, args: Namespace) -> _Outputs:
        """The places that `args` names, each checked."""
        sheet = None if args.no_sheet else args.sheet or Path(f"{args.clip.stem}_roundtrip.png")
        figures = Path(args.json) if isinstance(args.json, str) else None
        for path, suffix in ((sheet, ".png"), (figures, ".json")):
            if path is not None:
                check_output(path, {suffix})
        check_distinct(args.clip, args.output, sheet, figures)
        return cls(args.output, sheet, figures)


def _measured(args: Namespace, vae: VideoVAE, options: VideoOptions) -> tuple[Report, _Judge]:
    """The report of a round trip, and the pictures that it shows."""
    settings = settings_of(args)
    start_peak(vae.device)
    encoded = _encode(args, vae, settings)
    decoded = _decode(args, vae, encoded, options)
    peak = peak_bytes(vae.device)
    latents_apart, pixels_apart = _differences(args, vae, encoded, decoded)
    report = Report(
        clip=encoded.info.path.name,
        vae=vae_name(vae),
        dtype=dtype_words(vae.device, vae.dtype),
        device=str(vae.device),
        sample_frames=decoded.size[0],
        height_px=decoded.size[1],
        width_px=decoded.size[2],
        fps=float(encoded.info.fps),
        latent_shape=tuple(encoded.latents.shape),
        likeness=decoded.judge.errors.likeness(),
        tiling=word(settings.tiling),
        latents_apart=latents_apart,
        pixels_apart=pixels_apart,
        plan=_plans(vae, encoded, settings),
        peak_bytes=peak,
        peak_kind=peak_kind(vae.device),
        encode_seconds=encoded.seconds,
        decode_seconds=decoded.seconds,
        notes=_notes(encoded, decoded),
    )
    return report, decoded.judge


def roundtrip(args: Namespace) -> None:
    """A video to latents and back, with a report in text, JSON and pictures."""
    args.clip = args.clip or vae_core.sample_clip_path()
    options = video_options(args, args.output)
    settings_of(args)
    _open(args).close()
    outputs = _Outputs.of(args)
    if not writes(args):
        outputs, args.output = _Outputs(None, None, None), None
    report, judge = _measured(args, load_for(args), options)
    if outputs.sheet is not None:
        before, after = (np.stack(frames) for frames in zip(*judge.pairs, strict=True))
        draw_sheet(outputs.sheet, sorted(judge.wanted), before, after, report)
    if outputs.json is not None:
        with whole_file(outputs.json) as part:
            part.write_text(json_text(report.as_dict()))
    if args.json is True:
        say(json_text(report.as_dict()))
        return
    say(report.text())
    for kind, path in (("video", outputs.clip), ("sheet", outputs.sheet), ("json", outputs.json)):
        if path is not None:
            say(f"{kind:<12} {path}")
