"""How is a clip encoded, decoded and reported on?

1. Check every name, setting and file; read the clip; load the VAE.
2. Encode and decode, watching time and memory; then once more without tiles, to compare.
3. Measure, and write what was asked for: report, contact sheet, figures, the result itself.
"""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vae_core

from ..fitting import Fitted
from ..media.files import check_distinct, check_output, whole_file
from ..media.video import Clip, Frames, frames_to_tensor, tensor_to_frames
from ..media.video_writing import write_video
from ..settings import Settings, Tiling
from ..vae import VideoVAE
from .contact_sheet import contact_sheet
from .options import (
    clip_of,
    json_text,
    latents_of,
    load_for,
    say,
    settings_of,
    timed,
    vae_name,
    video_options,
    word,
)
from .peak_memory import peak_bytes, peak_kind, start_peak
from .report import Difference, Report, compare


@dataclass(frozen=True, slots=True)
class _Trip:
    """One clip, encoded and decoded.

    latents: [1, c, n, h/8, w/8]. video: [1, 3, t, h, w], with what padding added.
    seconds: of encode and of decode.
    """

    latents: torch.Tensor
    video: torch.Tensor
    fitted: Fitted
    seconds: tuple[float, float]


def _trip(args: Namespace, vae: VideoVAE, video: torch.Tensor, settings: Settings) -> _Trip:
    work = partial(vae.encode, video)
    posterior, encode_seconds = timed(work, "encode", settings, args.quiet)
    latents = latents_of(args, posterior)
    back = partial(vae.decode, latents)
    decoded, decode_seconds = timed(back, "decode", settings, args.quiet)
    return _Trip(latents, decoded, posterior.fitted, (encode_seconds, decode_seconds))


def _differences(
    args: Namespace, vae: VideoVAE, video: torch.Tensor, tiled: _Trip
) -> tuple[Difference, Difference] | tuple[None, None]:
    """How far tiling moved latents and pixels, if compared.

    Each from one input: the untiled decode starts from the tiled encode's latents.
    """
    settings = replace(settings_of(args), tiling=Tiling.OFF)
    if args.no_compare or settings_of(args).tiling is Tiling.OFF:
        return None, None
    encode = partial(vae.encode, video)
    posterior, _ = timed(encode, "encode untiled", settings, args.quiet)
    latents = _apart(tiled.latents, latents_of(args, posterior))
    decode = partial(vae.decode, tiled.latents)
    whole, _ = timed(decode, "decode untiled", settings, args.quiet)
    return latents, _apart(tiled.video, whole)


def _apart(result: torch.Tensor, reference: torch.Tensor) -> Difference:
    value_range = float(reference.max()) - float(reference.min())
    return Difference(float((result - reference).abs().max()), value_range)


def _compared(clip: Clip, trip: _Trip) -> tuple[Frames, Frames, tuple[str, ...]]:
    """Source and reconstruction cut to their common size, and a note where frame counts differ."""
    frames, height, width = (
        min(a, b) for a, b in zip(clip.frames.shape[:3], trip.video.shape[2:], strict=True)
    )
    notes: tuple[str, ...] = ()
    if trip.video.shape[2] != trip.fitted.network.t:
        notes = (
            f"Decoding gave {trip.video.shape[2]} frames for {trip.fitted.network.t};"
            f" the first {frames} were compared.",
        )
    cut = trip.video[:, :, :frames, :height, :width]
    return clip.frames[:frames, :height, :width], tensor_to_frames(cut), notes


def _plans(vae: VideoVAE, video: torch.Tensor, trip: _Trip, settings: Settings) -> dict[str, Any]:
    return {
        "encode": vae.plan_encode(video.shape, settings).as_dict(),
        "decode": vae.plan_decode(trip.latents.shape, settings).as_dict(),
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


def _measured(args: Namespace, clip: Clip, vae: VideoVAE) -> tuple[Report, Frames, Frames]:
    """The report of a round trip, and the two clips that it compares."""
    settings = settings_of(args)
    video = frames_to_tensor(clip.frames)
    start_peak(vae.device)
    trip = _trip(args, vae, video, settings)
    peak = peak_bytes(vae.device)
    latents_apart, pixels_apart = _differences(args, vae, video, trip)
    source, reconstruction, notes = _compared(clip, trip)
    likeness = compare(source, reconstruction)
    report = Report(
        clip=clip.info.path.name,
        vae=vae_name(vae),
        dtype=args.dtype,
        device=str(vae.device),
        sample_frames=len(source),
        height_px=source.shape[1],
        width_px=source.shape[2],
        fps=float(clip.info.fps),
        latent_shape=tuple(trip.latents.shape),
        likeness=likeness,
        tiling=word(settings.tiling),
        latents_apart=latents_apart,
        pixels_apart=pixels_apart,
        plan=_plans(vae, video, trip, settings),
        peak_bytes=peak,
        peak_kind=peak_kind(vae.device),
        encode_seconds=trip.seconds[0],
        decode_seconds=trip.seconds[1],
        notes=clip.notes + trip.fitted.notes + notes,
    )
    return report, source, reconstruction


def roundtrip(args: Namespace) -> None:
    """A video to latents and back, with a report in text, JSON and pictures."""
    args.clip = args.clip or vae_core.sample_clip_path()
    options = video_options(args, args.output)
    settings_of(args)
    clip = clip_of(args)
    outputs = _Outputs.of(args)
    vae = load_for(args)
    report, source, reconstruction = _measured(args, clip, vae)
    if outputs.clip is not None:
        write_video(outputs.clip, reconstruction, clip.info.fps, options)
    if outputs.sheet is not None:
        contact_sheet(outputs.sheet, source, reconstruction, report)
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
