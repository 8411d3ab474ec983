"""Where do the sample frames of a stream come from, when nobody knows how many there will be?

1. `FrameFeed` pulls frames from an iterable, checks each as it comes, and hands them out in runs of
   any length. It holds no more than the run that is asked for next. What waits for more is copied,
   since a source may write its next frame where the one before it was.
2. `collect` takes all of them at once, for what needs the whole clip: in host memory, or in a
   nameless temporary file.
3. `FrameRuns` is the other kind of source: one of known length that is read piece by piece, such
   as latents in a file.

It knows nothing of the network: `encode_stream.py` decides what is asked for.
"""

from __future__ import annotations

import mmap
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.region import Interval
from ..running.autocast import joined
from ..running.stores import disk_room
from ..settings import Place
from .values import check_tensor, check_values


@runtime_checkable
class FrameRuns(Protocol):
    """Frames of known number that are read when they are wanted.

    shape: [b, c, t, h, w]. device: where `take` puts what it returns.
    """

    @property
    def shape(self) -> Sequence[int]:
        """[b, c, t, h, w]."""
        ...

    @property
    def device(self) -> torch.device:
        """Where frames come out."""
        ...

    def take(self, frames: Interval) -> Tensor:
        """Frames [frames.start, frames.stop) as [b, c, t, h, w], finite floating point."""
        ...


def is_frame_runs(source: object) -> bool:
    """Whether frames can be read from `source` piece by piece."""
    return isinstance(source, FrameRuns)


_END = object()
"""What an iterator that has ended gives; None may come from one that has not."""


class FrameFeed:
    """Sample frames that come one by one or in runs, from an iterable of unknown length.

    Invariants: all frames have one batch, height, width and dtype; `held` frames wait here, and
    `given` have been handed out. Raises `InputError` for what is no frame.
    """

    def __init__(self, frames: Iterable[Tensor], channels: int) -> None:
        try:
            self._source: Iterator[Tensor] = iter(frames)
        except TypeError:
            raise InputError(
                "a stream must be a tensor [b, 3, t, h, w] or an iterable of sample frames [b, 3,"
                f" h, w]; got {type(frames).__name__}."
            ) from None
        self._channels = channels
        self._waiting: list[Tensor] = []
        self._kind: tuple[Any, ...] | None = None
        self._borrowed = False  # whether the last of those that wait is the source's own
        self.held = 0
        self.given = 0

    def hold(self, count: int) -> int:
        """Pull until `count` frames wait here or no more come; how many wait."""
        while self.held < count:
            self._keep()
            frames = next(self._source, _END)
            if frames is _END:
                break
            run = self._checked(frames)
            self._waiting.append(run)
            self._borrowed = True
            self.held += run.shape[2]
        return self.held

    def _keep(self) -> None:
        """Take a copy of what waits in memory that is the source's."""
        if self._borrowed and self._waiting:
            self._waiting[-1] = self._waiting[-1].clone()
        self._borrowed = False

    def take(self, count: int) -> Tensor:
        """The next `count` frames [b, c, count, h, w], which must be held."""
        parts: list[Tensor] = []
        missing = count
        while missing:
            run = self._waiting.pop(0)
            if run.shape[2] > missing:
                self._waiting.insert(0, run[:, :, missing:])
                run = run[:, :, :missing]
            parts.append(run)
            missing -= run.shape[2]
        self.held -= count
        self.given += count
        return parts[0] if len(parts) == 1 else joined(parts, dim=2)

    def peek(self) -> Tensor:
        """The run that waits first; one must be held."""
        return self._waiting[0]

    def collect(self, place: Place) -> Tensor:
        """All frames that are left, [b, c, t, h, w], in host memory or a temporary file.

        Raises `InputError` where there is none.
        """
        if not self.hold(1):
            raise no_frames()
        if place is Place.DISK:
            return self._spooled()
        self.hold(sys.maxsize)
        return self.take(self.held)

    def _spooled(self) -> Tensor:
        """All frames in a nameless temporary file, one after the other as they come.

        Raises `DiskError` where the disk has no room.
        """
        first = self.peek()
        with disk_room(), tempfile.TemporaryFile(prefix="exact_video_vae_") as file:
            while self.hold(1):
                run = self.take(self._waiting[0].shape[2])
                file.write(run.movedim(2, 0).cpu().contiguous().view(torch.uint8).numpy().data)
            file.flush()
            memory = mmap.mmap(file.fileno(), 0)
        frames = torch.frombuffer(memory, dtype=first.dtype)
        b, c, _, h, w = first.shape
        return frames.view(self.given, b, c, h, w).movedim(0, 2)  # [b, c, t, h, w]

    def _checked(self, frames: object) -> Tensor:
        """`frames` as a run [b, c, k, h, w] like those before it."""
        number = self.given + self.held
        if not isinstance(frames, Tensor) or frames.ndim not in (4, 5):
            came = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
            raise InputError(
                "a stream gives sample frames [b, 3, h, w] or runs of them [b, 3, k, h, w]; item at"
                f" frame {number} is {came}."
            )
        check_tensor(frames, f"frame {number} of a stream")
        run = frames[:, :, None] if frames.ndim == 4 else frames  # [b, c, k, h, w]
        if run.shape[1] != self._channels or 0 in run.shape:
            raise InputError(
                f"a stream's frames need {self._channels} channels in dimension 1 and no empty"
                f" dimension; frame {number} is {list(frames.shape)}."
            )
        kind = (run.shape[0], run.shape[3], run.shape[4], run.dtype, run.device)
        if self._kind not in (None, kind):
            raise InputError(
                "all frames of a stream need one batch, height, width, dtype and device; frame"
                f" {number} has {kind}, those before it {self._kind}."
            )
        self._kind = kind
        check_values(run, "a stream of frames", "pixels / 127.5 - 1", number)
        return run


def no_frames() -> InputError:
    """What is said of a stream without a frame."""
    return InputError("a stream must give at least one sample frame; it ended before the first.")
