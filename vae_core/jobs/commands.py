"""What do the commands `info`, `plan`, `encode` and `decode` do? (`roundtrip.py` holds the fifth.)

Every one goes the same way:
1. Check names, settings and files, so that a mistake costs a second and not an hour.
2. Load the VAE, and run.
3. Write results whole or not at all, and say on stdout what was done.

Bad input is raised as a `VaeCoreError`; `cli.py` turns it into one line.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from math import ceil
from typing import Any, cast

import torch

from ..errors import BudgetError, VideoError, counted
from ..families.conventions import UNSCALED
from ..families.family import BY_NAME, COGVIDEOX, Scale
from ..geometry.fitting import Fitted
from ..geometry.region import Extent
from ..media.audio import AudioTrack
from ..media.files import check_distinct, check_input, check_output
from ..media.latent_file import LATENT_SUFFIXES, LatentMeta
from ..media.latent_stream import Kept, LatentFile, MomentSpool, write_spooled
from ..media.video import PICTURE_FPS, VideoSource, open_video
from ..media.video_writing import check_options, open_writer
from ..planning.plan import Plan, size_text
from ..settings import Given, Settings
from ..streaming.values import checked_device
from ..vae import VideoVAE, from_module
from .file_streams import Nobody, decode_video, encode_video
from .launch import writes
from .options import (
    DTYPES,
    form_of,
    json_text,
    load,
    load_for,
    resize_of,
    say,
    selection_of,
    settings_of,
    timed,
    vae_name,
    version,
    video_options,
    word,
)


def info(args: Namespace) -> None:
    """Architecture, parameters and dtype of a VAE file."""
    vae = load(args.file, args.family, None, "cpu")
    statistics = vae.latent_statistics
    facts: dict[str, Any] = {
        "file": str(vae.loaded.source if vae.loaded else None),
        **asdict(vae.architecture),
        "scaling_factor": vae.scaling_factor,
        "latents_mean": statistics and statistics.mean,
        "latents_std": statistics and statistics.std,
    }
    if args.json:
        say(json_text(facts))
        return
    foreign = _FOREIGN[vae.family.scale]
    for name, value in facts.items():
        if name not in foreign and (name, value) != ("norm_num_groups", None):
            say(f"{name.replace('_', ' '):<28} {_shown(name, value)}")


_FOREIGN = {Scale.FACTOR: ("latents_mean", "latents_std"), Scale.CHANNELS: ("scaling_factor",)}
"""Facts that a family's VAEs do not have."""


def _shown(name: str, value: object) -> str:
    """A fact for readers."""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, cast("Sequence[object]", value)))
    if name == "parameters" and isinstance(value, int):
        return f"{value:,} ({value / 1e6:.1f} million)"
    return (
        "unknown: weights do not show it, and there is no config.json"
        if value is None
        else str(value)
    )


def _unweighted(args: Namespace) -> VideoVAE:
    """The VAE whose file was named, else the full-size network without weights."""
    if args.vae is not None:
        return load_for(args)
    family = BY_NAME[args.family] if args.family else COGVIDEOX
    with torch.device("meta"):
        module = family.published.network()
    # Without weights there is nothing to run: `meta` stands for a graphics card of any kind.
    asked = checked_device("meta" if args.device == "auto" else args.device)
    return from_module(module, DTYPES[args.dtype], asked if asked.type == "cpu" else "meta")


def plan(args: Namespace) -> None:
    """Chunks, tiles and projected memory to encode and decode a shape; nothing is run."""
    settings = settings_of(args)
    vae = _unweighted(args)
    plans = _both_plans(vae, (1, vae.sample_channels, *args.shape), settings)
    if args.json:
        say(json_text({name: found.as_dict() for name, found in plans.items()}))
    else:
        for found in plans.values():
            say(found.describe())


def _both_plans(vae: VideoVAE, shape: tuple[int, ...], settings: Settings) -> dict[str, Plan]:
    """How a video of `shape` would be encoded, and its latents decoded.

    Raises a `BudgetError` that speaks of both where either is refused: what one needs says nothing
    of the other.
    """
    ways = {
        "encode": partial(vae.plan_encode, shape, settings),
        "decode": partial(vae.plan_decode, vae.latent_shape(shape, settings), settings),
    }
    plans: dict[str, Plan] = {}
    refusals: dict[str, BudgetError] = {}
    for name, make in ways.items():
        try:
            plans[name] = make()
        except BudgetError as error:
            refusals[name] = error
    if refusals:
        raise _refused(refusals)
    return plans


def _refused(refusals: dict[str, BudgetError]) -> BudgetError:
    """One error in place of those of several jobs, with the budget that all of them fit."""
    worst = max(refusals.values(), key=lambda error: error.smallest_bytes)
    needed = size_text(worst.smallest_bytes, ceil)
    parts = [f"To {name}: {error}" for name, error in refusals.items()]
    return BudgetError(
        " ".join([*parts, f"A budget of {needed} fits to encode and to decode."]),
        projected_bytes=worst.projected_bytes,
        budget_bytes=worst.budget_bytes,
        smallest_bytes=worst.smallest_bytes,
        worst_path=worst.worst_path,
    )


def _meta(vae: VideoVAE, video: VideoSource, fitted: Fitted, settings: Settings) -> LatentMeta:
    ratios, statistics = vae.ratios, vae.latent_statistics
    return LatentMeta(
        family=vae.family.name,
        pixels_per_latent=ratios.px,
        frames_per_latent=ratios.frames,
        scaling_factor=vae.scaling_factor,
        latents_mean=statistics and statistics.mean,
        latents_std=statistics and statistics.std,
        sample_frames=fitted.source.t,
        height_px=fitted.source.h,
        width_px=fitted.source.w,
        network_frames=fitted.network.t,
        network_height_px=fitted.network.h,
        network_width_px=fitted.network.w,
        fps=video.info.fps,
        start_seconds=video.info.start_seconds or None,
        vae=vae_name(vae),
        version=version(),
        chunk_frames=settings.chunk_frames,
        norm_scope=word(settings.norm_scope),
        chunk_layout=word(settings.layout),
        tiling=word(settings.tiling),
    )


def _say_notes(notes: Sequence[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def encode(args: Namespace) -> None:
    """A video to a file of latents, in memory that does not grow with it."""
    check_output(args.output, LATENT_SUFFIXES)
    settings = settings_of(args)
    with open_video(args.clip, selection_of(args), resize_of(args)) as video:
        check_distinct(args.clip, args.output)
        check_distinct(args.vae, args.output)
        vae = load_for(args)
        seed = (args.seed or 0) if args.sample else None
        kept = Kept(args.moments, seed, form_of(args, vae) or UNSCALED)
        with MomentSpool(args.output.parent) as spool:
            work = partial(encode_video, vae, video, spool.add)
            fitted, seconds = timed(work, "encode", settings, args.quiet)
            if writes(args):
                write_spooled(args.output, spool, _meta(vae, video, fitted, settings), kept)
            shape = list(spool.shape)
    _say_notes(video.notes + fitted.notes)
    frames = f"{counted(fitted.source.t, 'sample frame')} to latents {shape}"
    say(f"{args.output}: {frames} in {seconds:.1f} s")


def _trim(meta: LatentMeta) -> Extent | None:
    """The size that decoded frames are cut back to: the source's, where something was padded."""
    return None if meta.source is None else Extent(*meta.source)


def _size(shape: Sequence[int], px: int, meta: LatentMeta) -> tuple[int, int]:
    """Height and width of the video that latents of `shape` become.

    px: pixels for each place of the latents.
    """
    full, trim = [px * side for side in shape[3:]], _trim(meta)
    height, width = full if trim is None else map(min, full, (trim.h, trim.w))
    return height, width


def _audio(args: Namespace, meta: LatentMeta) -> AudioTrack | None:
    """The sound that was asked for, from where the clip begins in it."""
    if args.audio is None:
        return None
    check_input(args.audio)
    return AudioTrack(args.audio, meta.start_seconds or 0)


def decode(args: Namespace) -> None:
    """A file of latents to a video, in memory that does not grow with it."""
    options = video_options(args, args.output)
    settings = settings_of(args)
    vae = load_for(args)
    with LatentFile(args.latents, form_of(args, vae), vae.family.name) as latents:
        meta, audio = latents.meta, _audio(args, latents.meta)
        check_distinct(args.latents, args.output)
        check_distinct(args.audio, args.output)
        if latents.shape[0] != 1:
            raise VideoError(
                f"a video file holds one clip; {args.latents} holds a batch of {latents.shape[0]}."
            )
        if args.layout is None and meta.chunk_layout is not None:
            settings = replace(settings, layout=meta.chunk_layout)
        fps = args.fps or meta.fps or PICTURE_FPS
        check_options(args.output, options, _size(latents.shape, vae.ratios.px, meta), fps)
        settings = replace(settings, parallel_result=Given.FIRST)
        opened = open_writer(args.output, fps, options, audio) if writes(args) else nullcontext()
        with opened as writer:
            work = partial(decode_video, vae, latents, writer or Nobody(), _trim(meta))
            (frames, height, width), seconds = timed(work, "decode", settings, args.quiet)
    if writer and writer.silent:
        say(f"note: {args.audio} has no sound.")
    size = f"{counted(frames, 'frame')} of {height}x{width} px"
    say(f"{args.output}: {size} at {float(fps):.4g} a second in {seconds:.1f} s")
