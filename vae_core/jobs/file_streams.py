"""How does a video run through the network from file to file, with nothing waiting for the disk?

Four stages, each in a thread of its own, with bounded queues between them (`media/pipeline.py`):

    read and decode -> colours, size, floats -> network (the caller's thread) -> video encoder

Queues hold about a chunk, so memory is the same for every length of clip; and while the network
computes one chunk, the next is read and the last one written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..geometry.fitting import Fitted
from ..geometry.region import Extent
from ..media.pipeline import read_ahead, write_behind
from ..media.selection import Shot
from ..media.video import Frame, VideoSource, frames_to_tensor, tensor_to_frames
from ..posterior import MomentStream
from ..settings import Settings
from ..streaming.frame_feed import FrameRuns

_CHUNKS_BEHIND = 1
"""Decoded chunks that wait for the video encoder, beside the one that it works on."""


class Encoder(Protocol):
    """What encodes a stream; a `VideoVAE`."""

    def encode_stream(
        self, frames: Iterator[Tensor], settings: Settings, frame_count: int | None
    ) -> MomentStream:
        """See `VideoVAE.encode_stream`."""
        ...


class Decoder(Protocol):
    """What decodes a stream; a `VideoVAE`."""

    def decode_stream(self, latents: Tensor | FrameRuns, settings: Settings) -> Iterator[Tensor]:
        """See `VideoVAE.decode_stream`."""
        ...


class FrameSink(Protocol):
    """What takes decoded frames; a `VideoWriter`."""

    def add(self, frame: Frame) -> None:
        """The next frame, uint8 [h, w, 3]."""
        ...


class Nobody:
    """Takes frames that are not wanted here."""

    def add(self, frame: Frame) -> None:
        """See `FrameSink`."""


def _pixels(video: VideoSource, shot: Shot) -> Tensor:
    """A shot as [1, 3, h, w], -1 to 1."""
    return frames_to_tensor(video.picture(shot)[np.newaxis])[:, :, 0]


@contextmanager
def frames_ahead(video: VideoSource, depth: int) -> Generator[Iterator[Tensor]]:
    """The frames of `video` as [1, 3, h, w], -1 to 1, read and converted in two threads.

    depth: frames that wait in each of the two queues at most.
    """
    with (
        read_ahead(video.shots(), depth) as shots,
        read_ahead(map(partial(_pixels, video), shots), depth) as frames,
    ):
        yield frames


def encode_video(
    vae: Encoder,
    video: VideoSource,
    take: Callable[[Tensor], object],
    settings: Settings,
) -> Fitted:
    """Encode all of `video`, handing moments [1, 2c, t, h, w] to `take` chunk by chunk; what was
    done to its size.

    Raises `VideoError` where the file breaks off, and what `VideoVAE.encode_stream` and `take`
    raise; no thread is left.
    """
    with (
        frames_ahead(video, settings.chunk_frames) as frames,
        closing(vae.encode_stream(frames, settings, video.info.frames)) as stream,
    ):
        for moments in stream:
            take(moments)
        return stream.fitted


def _add_all(writer: FrameSink, frames: Tensor) -> None:
    for frame in tensor_to_frames(frames):
        writer.add(frame)


def decode_video(
    vae: Decoder,
    latents: Tensor | FrameRuns,
    writer: FrameSink,
    trim: Extent | None,
    settings: Settings,
) -> tuple[int, int, int]:
    """Decode all of `latents` [1, c, n, h/r, w/r] into `writer`; the size of what was written, as
    (frames, height, width).

    trim: the clip's own size, where encoding padded it.
    """
    written, size = 0, (0, 0)
    with write_behind(partial(_add_all, writer), _CHUNKS_BEHIND) as put:
        for frames in vae.decode_stream(latents, settings):
            if trim is not None:
                frames = frames[:, :, : max(trim.t - written, 0), : trim.h, : trim.w]
            if frames.shape[2]:
                put(frames.to("cpu", torch.float32))
            written, size = written + frames.shape[2], (frames.shape[3], frames.shape[4])
    return written, *size
