"""How does a video go from a file to latents, and back, a few frames at a time?

Reading, resizing and writing run beside the network (`vae_core.jobs.file_streams`). Paths stay
inside the host's own input and output folders; a file appears when it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...vae_core import InputError, Posterior, Settings, VaeCoreError, VideoError
from ...vae_core.errors import counted
from ...vae_core.geometry.fitting import Fitted
from ...vae_core.jobs.file_streams import decode_video, encode_video
from ...vae_core.media.framing import Framing
from ...vae_core.media.video import Resize, Selection, open_video
from ...vae_core.media.video_writing import VideoOptions, check_options, open_writer
from ...vae_core.planning.plan import Plan
from ...vae_core.program.steps import SOURCE
from ...vae_core.running.autocast import joined
from . import card, host
from .components import stream_of
from .images import with_colours
from .latents import latents_for
from .live import Watch
from .origin import latent_of, own_size
from .running import chosen_samples, report, settings_of, settled
from .vae import exact_vae

_SUFFIXES = {"vp9": ".webm", "prores": ".mov"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a video is read: a path or an open file, and the window [start, stop) in seconds."""

    file: Any
    start: float = 0.0
    stop: float | None = None


def video_source(name: str, path: Path | None, video: Any) -> Source:
    """The connected video, else the file at `path`, which a person chose as `name`.

    Raises `VideoError` where there is neither, or no such file.
    """
    if video is None:
        if path is None or not path.is_file():
            raise VideoError(
                "there is no video: connect one, or choose a file of the input folder in 'file';"
                f" got {name!r}."
            )
        return Source(path)
    file = stream_of(video)
    start, duration = getattr(video, "get_active_trim_window", lambda: (0.0, 0.0))()
    return Source(file, start, start + duration if duration else None)


def _selection(source: Source, values: dict[str, Any]) -> Selection:
    fps = values["target_fps"]
    return Selection(
        skip_frames=values["skip"],
        max_frames=values["count"] or None,
        stride=values["stride"],
        fps=Fraction(fps).limit_denominator(1001) if fps else None,
        start_seconds=source.start,
        stop_seconds=source.stop,
    )


def _resize(source: Source, values: dict[str, Any], latent_px: int) -> Resize | None:
    """The size that is asked for; a side of 0 keeps the video's proportions, or its size, and is
    then whole latent elements, each so many pixels wide.
    """
    width, height = values["width"], values["height"]
    if not width and not height:
        return None
    if not (width and height):
        with open_video(source.file) as video:
            own = video.info
        if width:
            height = _nearest(own.height_px * width / own.width_px, latent_px)
        else:
            width = _nearest(own.width_px * height / own.height_px, latent_px)
    return Resize(height, width, Framing(values["framing"]))


def _nearest(side: float, step: int) -> int:
    """The multiple of `step` that is nearest to `side`, at least one."""
    return max(step, round(side / step) * step)


def encode_file(
    vae: Any, source: Source, values: dict[str, Any], node_id: str | None
) -> tuple[dict[str, Any], float, str]:
    """LATENT, frames a second and report of a video."""
    vae = exact_vae(vae)
    settings = settings_of(values, vae)
    engine, watch = vae.video_vae, Watch("encode", node_id, values.get("extra_pnginfo"))
    parts: list[Tensor] = []
    with (
        card.current(vae),
        open_video(
            source.file, _selection(source, values), _resize(source, values, vae.ends.px)
        ) as video,
    ):
        info = video.info
        frames = info.frames or 2 * settings.chunk_frames + 1
        shape = (1, vae.ends.colours_in, frames, info.height_px, info.width_px)
        settings, plan = settled(
            vae, lambda s: engine.plan_encode(shape, s, probing=True), settings
        )
        watch.begin(plan, vae)
        fed = _Fed(engine, vae.ends.colours_in)

        def take(moments: Tensor) -> None:
            parts.append(moments.to(vae.output_device))
            watch.glimpse(fed.newest)

        fitted = encode_video(fed, video, take, replace(settings, on_progress=watch))
        notes = [*video.notes, *card.seen(vae, engine, plan)]
    plan = _as_run(engine, plan, fitted, settings)
    watch.end(plan)
    posterior = Posterior.from_moments(joined(parts, dim=2), fitted)
    samples = chosen_samples(vae, posterior, values).to(vae.output_device, host.result_dtype())
    text = report(vae, plan, watch.seconds, notes, fitted)
    return latent_of(samples, fitted), float(info.fps), text


def _as_run(engine: Any, plan: Plan, fitted: Fitted, settings: Settings) -> Plan:
    """The plan of what was run: a file may not have said how long it is, or not the truth."""
    size = fitted.source
    try:
        colours = plan.job.program.stores[SOURCE].channels
        return engine.plan_encode((1, colours, size.t, size.h, size.w), settings)
    except VaeCoreError:  # of a longer clip than was planned, which has been run all the same
        return plan


class _Fed:
    """An encoder that knows the newest frame it was given, and gives it as many colours as the
    network takes.

    newest: [h, w, 3] in [0, 1]; empty before there is one.
    """

    def __init__(self, engine: Any, colours: int) -> None:
        self._engine, self._colours = engine, colours
        self._frame = torch.empty(1, 3, 0, 0, device="cpu")

    @property
    def newest(self) -> Tensor:
        return _picture_of(self._frame[0])

    def encode_stream(self, frames: Iterator[Tensor], settings: Any, count: int | None) -> Any:
        """See `VideoVAE.encode_stream`."""
        return self._engine.encode_stream(self._seen(frames), settings, count)

    def _seen(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        for frame in frames:
            self._frame = frame
            yield with_colours(frame.movedim(1, -1), self._colours).movedim(-1, 1)


class _Shown:
    """A decoder whose newest frame is shown to the person who waits; of its frames the colours that
    a video has.
    """

    def __init__(self, engine: Any, watch: Watch) -> None:
        self._engine, self._watch = engine, watch

    def decode_stream(self, latents: Any, settings: Any) -> Iterator[Tensor]:
        """See `VideoVAE.decode_stream`."""
        for frames in self._engine.decode_stream(latents, settings):
            self._watch.show(_picture_of(frames[0, :3, -1]))
            yield frames[:, :3]


def _picture_of(frame: Tensor) -> Tensor:
    """A frame [3, h, w] in about [-1, 1] as [h, w, 3] in [0, 1]."""
    return ((frame.float().movedim(0, -1) + 1.0) / 2.0).clamp(0.0, 1.0)


def decode_file(
    vae: Any, latent: Any, values: dict[str, Any], node_id: str | None
) -> dict[str, Any]:
    """What the node gives back: VIDEO, report, and the file for the client to show."""
    vae = exact_vae(vae)
    settings = settings_of(values, vae)
    samples, notes = latents_for(vae, latent)
    if samples.shape[0] != 1:
        raise InputError(
            f"a video file holds one clip; got a batch of {samples.shape[0]} latents. Decode them"
            " one by one."
        )
    engine, (trim, told) = vae.video_vae, own_size(latent, samples, vae.ends.ratios)
    watch = Watch("decode", node_id, values.get("extra_pnginfo"))
    shape = tuple(samples.shape)
    settings, plan = settled(vae, lambda s: engine.plan_decode(shape, s, probing=True), settings)
    full = (vae.ends.px * samples.shape[3], vae.ends.px * samples.shape[4])
    target = host.output_target(
        values["filename_prefix"], _SUFFIXES.get(values["codec"], ".mp4"), full
    )
    options = VideoOptions(
        codec=values["codec"], quality=values["quality"], metadata=_metadata(values)
    )
    fps = Fraction(values["fps"]).limit_denominator(1001)
    check_options(target.path, options, full if trim is None else (trim.h, trim.w), fps)
    watch.begin(plan, vae)
    with card.current(vae), open_writer(target.path, fps, options) as file:
        size = decode_video(
            _Shown(engine, watch), samples, file, trim, replace(settings, on_progress=watch)
        )
    watch.end()
    notes += [*told, *card.seen(vae, engine, plan)]
    if vae.ends.colours_out > 3:
        notes.append("Alpha was left out: the file holds colours only.")
    notes.append(f"{counted(size[0], 'frame')} of {size[1]}x{size[2]} written to {target.shown}.")
    result = (host.video_of(target.path), report(vae, plan, watch.seconds, notes))
    return {"ui": {"images": [target.preview], "animated": (True,)}, "result": result}


def _metadata(values: dict[str, Any]) -> dict[str, str]:
    """The workflow, as the host's own video nodes store it."""
    if not host.keeps_metadata():
        return {}
    entries = dict(values.get("extra_pnginfo") or {})
    if values.get("prompt") is not None:
        entries["prompt"] = values["prompt"]
    return {name: json.dumps(value) for name, value in entries.items()}
