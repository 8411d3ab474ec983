"""How does one clip become one file of latents?

1. `prepare` opens it, finds its bucket, and reads the frames that are wanted at that size; what
   cannot be used comes out as a reason.
2. `Encoding.finish` runs the network and writes the file.

The two may run in different threads: the next clip is read while this one is computed. Both depend
on the clip and the recipe alone, so that files are the same whoever makes them, and when.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, VaeCoreError
from ..media.video import Frame, Resize, Selection, VideoSource, frames_to_tensor, open_video
from ..settings import Settings
from ..vae import VideoVAE
from .buckets import Bucket, frames_for, longest, shortest, size_for
from .clips import SourceClip
from .shards import Entry, Shards, Skipped

FORMAT = "exact-video-vae dataset 1, laid out as cogvideox-factory's"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the numbers depend on, beside the clips.

    buckets: see `buckets.py`. spread: whether frames are spread over the clip, in place of its
    first ones. fps: to which clips are resampled; None for their own rate. moments: whether means
    and variances are kept, in place of the likeliest latents.
    """

    buckets: tuple[Bucket, ...]
    settings: Settings
    spread: bool = False
    fps: Fraction | None = None
    moments: bool = True

    @property
    def kind(self) -> str:
        """What is kept, in a word."""
        return "moments" if self.moments else "latents"

    def as_dict(self, vae: VideoVAE) -> dict[str, Any]:
        """The recipe in words and numbers, with what tells `vae` from others."""
        settings = asdict(self.settings)
        names = ("chunk_frames", "tiling", "norm_scope", "layout", "tile_px", "overlap_px")
        return {
            "format": FORMAT,
            "kind": self.kind,
            "buckets": [str(bucket) for bucket in self.buckets],
            "frames": "spread" if self.spread else "first",
            "fps": None if self.fps is None else str(self.fps),
            "vae": vae.loaded.source.name if vae.loaded else "a live module",
            "weights_sha256": weights_digest(vae),
            "dtype": str(vae.dtype).removeprefix("torch."),
            "scaling_factor": vae.scaling_factor,
            **{name: getattr(settings[name], "value", settings[name]) for name in names},
        }


def weights_digest(vae: VideoVAE) -> str:
    """What tells these weights from others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vae.module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A clip that is ready for the network.

    frames: its bucket's number of them, uint8 [height_px, width_px, 3]. fps: of these frames.
    """

    clip: SourceClip
    bucket: Bucket
    frames: tuple[Frame, ...]
    fps: Fraction


def _counted(clip: SourceClip, selection: Selection) -> int:
    """How many frames a clip has; by reading it where its file does not say."""
    with open_video(clip.path, selection) as video:
        return video.info.frames or sum(1 for _ in video.shots())


def _selection(clip: SourceClip, recipe: Recipe, size: tuple[int, int]) -> Selection:
    most = longest(recipe.buckets, size)
    plain = Selection(fps=recipe.fps)
    if not recipe.spread:
        return Selection(fps=recipe.fps, max_frames=most)
    count = _counted(clip, plain)
    bucket = frames_for(recipe.buckets, size, count)
    wanted = bucket.frames if bucket else most
    return Selection(fps=recipe.fps, stride=max(count // wanted, 1), max_frames=wanted)


def _read(clip: SourceClip, recipe: Recipe) -> Prepared:
    """The frames of a clip's bucket. Raises `VideoError` and `InputError`."""
    with open_video(clip.path, Selection(max_frames=1)) as video:
        size = size_for(recipe.buckets, video.info.height_px, video.info.width_px)
    selection = _selection(clip, recipe, size)
    with open_video(clip.path, selection, Resize(*size)) as video:
        frames, fps = tuple(video), _rate(video)
    bucket = frames_for(recipe.buckets, size, len(frames))
    if bucket is None:
        raise InputError(
            f"it has {len(frames)} frames; the smallest bucket of {size[0]}x{size[1]} px needs"
            f" {shortest(recipe.buckets, size)}."
        )
    return Prepared(clip, bucket, frames[: bucket.frames], fps)


def _rate(video: VideoSource) -> Fraction:
    return video.info.fps


def prepare(clip: SourceClip, recipe: Recipe) -> Prepared | Skipped:
    """The frames of a clip, or why it cannot be used: one bad file must not end a long run."""
    try:
        return _read(clip, recipe)
    except VaeCoreError as error:
        return Skipped(clip.source, str(error))
    except Exception as error:  # decoders raise all kinds of things over damaged files
        return Skipped(clip.source, f"{type(error).__name__}: {error}")


def _runs(frames: tuple[Frame, ...]) -> Iterator[Tensor]:
    """Frames as [1, 3, h, w], -1 to 1, made one by one."""
    for frame in frames:
        yield frames_to_tensor(frame[np.newaxis])[:, :, 0]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A VAE and a folder of results."""

    vae: VideoVAE
    recipe: Recipe
    shards: Shards

    def finish(self, prepared: Prepared) -> Entry | Skipped:
        """Encode a clip and write its file; what the index will say.

        Raises `VideoError` where it cannot be written.
        """
        clip, bucket = prepared.clip, prepared.bucket
        try:
            stream = self.vae.encode_stream(
                _runs(prepared.frames), self.recipe.settings, bucket.frames
            )
            moments = torch.cat(list(stream), dim=2)[0]  # [2c, n, h, w]
        except InputError as error:
            return Skipped(clip.source, str(error))
        if not bool(torch.isfinite(moments).all()):
            return Skipped(clip.source, "the encoder gave NaN or infinity; try another --dtype.")
        tensor = moments if self.recipe.moments else moments.chunk(2)[0]
        entry = Entry(
            name=clip.name,
            source=clip.source,
            size_bytes=clip.size_bytes,
            frames=bucket.frames,
            height_px=bucket.height_px,
            width_px=bucket.width_px,
            fps=str(prepared.fps),
            kind=self.recipe.kind,
            shape=tuple(tensor.shape),
            caption=clip.caption,
        )
        self.shards.save(entry, tensor)
        return entry

    def encode(self, clip: SourceClip) -> Entry | Skipped:
        """All of it, for one clip."""
        prepared = prepare(clip, self.recipe)
        return prepared if isinstance(prepared, Skipped) else self.finish(prepared)
