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

from ..errors import InputError, SettingsError, VaeCoreError, VideoError
from ..media.video import Frame, Resize, Selection, frames_to_tensor, open_video
from ..running.autocast import joined
from ..settings import Reference, Settings
from ..vae import VideoVAE
from .buckets import Bucket, frames_for, longest, shortest, size_for, spread
from .clips import SourceClip
from .content import digest_of
from .shards import FORMAT, Entry, Shards, Skipped

FIRST = "first"
SPREAD = "spread from first to last"
"""What a recipe calls the first frames, and those that are spread; folders that say only "spread"
have other ones.
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the numbers depend on, beside the clips.

    buckets: see `buckets.py`. spread: whether frames are spread over the clip, in place of its
    first ones. fps: to which clips are resampled; None for their own rate. moments: whether means
    and variances are kept, in place of the likeliest latents. format: for whom files are written.
    """

    buckets: tuple[Bucket, ...]
    settings: Settings
    spread: bool = False
    fps: Fraction | None = None
    moments: bool = True
    format: str = FORMAT

    def __post_init__(self) -> None:
        """Raises `SettingsError` where processes are to share each clip."""
        if self.settings.ranks > 1 and not self.settings.devices:
            raise SettingsError(
                "clips of a folder are not shared among processes: each of them would write all."
                " Leave parallel out, or name devices of this process; `ray_workers` share a folder"
                " clip by clip."
            )

    @property
    def kind(self) -> str:
        """What is kept, in a word."""
        return "moments" if self.moments else "latents"

    def as_dict(self, vae: VideoVAE) -> dict[str, Any]:
        """The recipe in words and numbers, with what tells `vae` from others."""
        names = ("chunk_frames", "tiling", "norm_scope", "layout", "tile_px", "overlap_px")
        if self.settings.reference is not Reference.OFFICIAL:
            names = (*names, "reference")
        return {
            "format": self.format,
            "kind": self.kind,
            "buckets": [str(bucket) for bucket in self.buckets],
            "frames": SPREAD if self.spread else FIRST,
            "fps": None if self.fps is None else str(self.fps),
            "family": vae.family.name,
            "ratios": asdict(vae.ratios),
            "vae": vae.loaded.source.name if vae.loaded else "a live module",
            "weights_sha256": weights_digest(vae),
            "dtype": str(vae.dtype).removeprefix("torch."),
            "scaling_factor": vae.scaling_factor,
            "latent_statistics": vae.latent_statistics and asdict(vae.latent_statistics),
            **{name: _plain(getattr(self.settings, name)) for name in names},
        }


def _plain(choice: Any) -> Any:
    """A setting as JSON holds it."""
    return getattr(choice, "value", choice)


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
    content: a digest of its file. notes: what is not in the frames as a player would show it.
    """

    clip: SourceClip
    bucket: Bucket
    frames: tuple[Frame, ...]
    fps: Fraction
    content: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Taken:
    """Frames of a clip, their rate, and what was found on the way.

    total: frames that the clip has, as far as it was read.
    """

    frames: tuple[Frame, ...]
    fps: Fraction
    notes: tuple[str, ...]
    total: int


def _first(clip: SourceClip, recipe: Recipe, size: tuple[int, int]) -> _Taken:
    """The first frames of a clip, as many as any bucket wants."""
    selection = Selection(fps=recipe.fps, max_frames=longest(recipe.buckets, size))
    with open_video(clip.path, selection, Resize(*size)) as video:
        frames = tuple(video)
        return _Taken(frames, video.info.fps, video.notes, len(frames))


def _spread(clip: SourceClip, recipe: Recipe, size: tuple[int, int]) -> _Taken:
    """Frames spread over all of a clip.

    What a file says of its length is a hint (edit lists cut it, fragments do not know it): where
    reading to the end finds another number, frames are chosen anew.
    """
    with open_video(clip.path, Selection(fps=recipe.fps)) as video:
        count = video.info.frames or sum(1 for _ in video.shots())
    taken = _spread_over(count, clip, recipe, size)
    return taken if taken.total == count else _spread_over(taken.total, clip, recipe, size)


def _spread_over(count: int, clip: SourceClip, recipe: Recipe, size: tuple[int, int]) -> _Taken:
    """The same for a clip that is said to have `count` frames."""
    bucket = frames_for(recipe.buckets, size, count)
    wanted = set(spread(count, bucket.frames)) if bucket else set[int]()
    frames: list[Frame] = []
    total = 0
    with open_video(clip.path, Selection(fps=recipe.fps), Resize(*size)) as video:
        for shot in video.shots():
            if total in wanted:
                frames.append(video.picture(shot))
            total += 1
        steps = Fraction(len(wanted) - 1, count - 1) if len(wanted) > 1 else Fraction(1)
        return _Taken(tuple(frames), video.info.fps * steps, video.notes, total)


def _read(clip: SourceClip, recipe: Recipe) -> Prepared:
    """The frames of a clip's bucket. Raises `VideoError` and `InputError`."""
    content = digest_of(clip.path)  # before it is read: what is written to it later is a change
    with open_video(clip.path, Selection(max_frames=1)) as video:
        size = size_for(recipe.buckets, video.info.height_px, video.info.width_px)
    taken = (_spread if recipe.spread else _first)(clip, recipe, size)
    bucket = frames_for(recipe.buckets, size, taken.total)
    if bucket is None:
        raise InputError(
            f"it has {taken.total} frames; the smallest bucket of {size[0]}x{size[1]} px needs"
            f" {shortest(recipe.buckets, size)}."
        )
    if len(taken.frames) < bucket.frames:
        raise VideoError(f"{clip.path} gives another number of frames each time it is read.")
    frames = taken.frames[: bucket.frames]
    return Prepared(clip, bucket, frames, taken.fps, content, taken.notes)


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
            moments = joined(list(stream), dim=2)[0]  # [2c, n, h, w]
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
            content=prepared.content,
            notes=prepared.notes,
        )
        self.shards.save(entry, tensor)
        return entry

    def encode(self, clip: SourceClip) -> Entry | Skipped:
        """All of it, for one clip."""
        prepared = prepare(clip, self.recipe)
        return prepared if isinstance(prepared, Skipped) else self.finish(prepared)
