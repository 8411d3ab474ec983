"""How is a clip encoded while its frames still arrive, and nobody knows how many will?

1. Frames are pulled until a chunk is full and one more is there, or no more come.
2. The plan is made for the whole clip where it ends there or its length is known, else for a clip
   with chunks of every kind: memory is the same however long it gets.
3. Every chunk goes through one `Execution`, which carries the causal caches. The last one is padded
   or cropped by the frame policy; what was done comes last.

Whole-clip statistics, blended tiles and diffusers' layout need every frame before the first result:
there the frames are collected first (in host memory, or where placement is `MMAP` in a temporary
file) and encoded as `VideoVAE.encode` does. That is the caller's business, see `needs_whole_clip`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from ..errors import InputError
from ..geometry.fitting import Fitted, fit
from ..geometry.grid import Chunk
from ..geometry.ratios import Ratios
from ..geometry.region import Extent, Interval
from ..planning.plan import Plan
from ..running.machines import Network as Weighted
from ..running.machines import weights_for
from ..running.parallel import execution_for
from ..running.stores import new_result, reserve
from ..settings import Layout, NormScope, Progress, Settings, Tiling, as_integer
from .fitted_frames import fitted_frames
from .frame_feed import FrameFeed, no_frames
from .values import check_readable

_CHUNKS_OF_EVERY_KIND = 3


class Network(Weighted, Protocol):
    """What a stream needs of a VAE."""

    def plan_encode(
        self, shape: tuple[int, ...], settings: Settings, *, probing: bool = False
    ) -> Plan:
        """How a video of `shape` [b, c, t, h, w] would be encoded."""
        ...


def needs_whole_clip(settings: Settings) -> bool:
    """Whether nothing can be computed before the last frame is there."""
    return (
        settings.norm_scope is NormScope.CLIP
        or settings.tiling is Tiling.BLEND
        or settings.layout is Layout.DIFFUSERS
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk's frames as they came.

    start: the number of its first frame in the clip. last: whether no frame follows.
    ratios: of the network that it goes through.
    """

    frames: Tensor
    start: int
    last: bool
    ratios: Ratios

    def fitted(self, settings: Settings) -> tuple[Fitted, Fitted]:
        """How the clip up to here is fitted, and how this piece of it is."""
        size, h, w = self.frames.shape[2:]
        source = Extent(self.start + size, h, w)
        lenient = settings if self.last else replace(settings, frame_fit="pad")
        whole = fit(source, lenient, self.ratios)
        network = replace(whole.network, t=max(whole.network.t - self.start, 0))
        return whole, Fitted(Extent(size, h, w), network, ())

    def chunk(self, frames: int) -> Chunk:
        """The chunk that `frames` of it, fitted, are."""
        stop = self.start + frames
        begins = self.ratios.latent_frames(self.start) if self.start else 0
        target = Interval(begins, self.ratios.latent_frames(stop))
        return Chunk(Interval(self.start, stop), target, self.start == 0, Layout.ALIGNED)


def _pieces(feed: FrameFeed, full: int, ratios: Ratios) -> Iterator[Piece]:
    """The clip in pieces of 1 + full, full, full ... frames, and the rest."""
    size = full + 1
    while held := feed.hold(size + 1):
        start = feed.given
        yield Piece(feed.take(min(held, size)), start, held <= size, ratios)
        size = full


_BELIEVED_FRAMES = 2**20
"""Of longer clips (twelve hours, at 24 a second) no header is believed."""


def _believed(count: int | None) -> int | None:
    """A count of frames that is worth planning for; None where it is unknown."""
    return count if count is not None and 0 < count <= _BELIEVED_FRAMES else None


def check_count(count: object) -> int | None:
    """`count` as an int, or None for an unknown one; `InputError` for anything else."""
    number = as_integer(count)
    if count is not None and number is None:
        raise InputError(
            f"frame_count must be a whole number of sample frames; got {count!r}. Leave it out"
            " where it is not known."
        )
    return number


def _planned(network: Network, feed: FrameFeed, settings: Settings, count: int | None) -> Plan:
    """The plan for what the feed holds and will hold; count: frames that are said to come."""
    first = feed.peek()
    b, c, _, h, w = first.shape
    if feed.held < settings.chunk_frames + 2:
        count = feed.held  # all of them
    if count is not None and count < feed.held:
        count = None
    if count:
        return network.plan_encode((b, c, count, h, w), settings, probing=True)
    frames = 1 + _CHUNKS_OF_EVERY_KIND * settings.chunk_frames
    padded = replace(settings, frame_fit="pad")
    plan = network.plan_encode((b, c, frames, h, w), padded, probing=True)
    return replace(plan, settings=replace(plan.settings, frame_fit=settings.frame_fit))


def _report(settings: Settings, length_known: bool) -> Callable[[Progress], object] | None:
    """What an execution reports to; without totals where the length is not known."""
    report = settings.on_progress
    if report is None or length_known:
        return report
    return lambda progress: report(replace(progress, total_operations=0, chunks=0))


def encode_chunks_of(
    network: Network, feed: FrameFeed, settings: Settings, frame_count: int | None
) -> Iterator[Tensor | Fitted]:
    """The encoder's result for every chunk of a feed, and in the end what was done to the size.

    frame_count: how many frames are said to come; a stream that gives more or fewer is encoded all
    the same. Raises `InputError` as `VideoVAE.encode` does, but for the frame policy, which where
    the count is not known can refuse only at the end.
    """
    if not feed.hold(settings.chunk_frames + 2):
        raise no_frames()
    check_readable(feed.peek(), network.device, "a stream of frames")
    frame_count = _believed(frame_count)
    plan = _planned(network, feed, settings, frame_count)
    reserve(plan)
    weights = weights_for(network, plan)
    known = frame_count is not None or feed.held < settings.chunk_frames + 2
    report = _report(settings, known)
    whole: Fitted | None = None
    with closing(execution_for(plan, weights, report)) as execution:
        program, own_settings = plan.job.program, plan.settings
        for piece in _pieces(feed, own_settings.chunk_frames, program.ratios):
            whole, own = piece.fitted(own_settings)
            if own.network.t:
                read = fitted_frames(own, piece.frames, Interval(0, own.network.t))
                chunk = piece.chunk(own.network.t)
                out = new_result(plan, chunk.target.size, network.dtype, read.device)
                execution.run(chunk, read, out, last=piece.last)
                yield out
    assert whole
    yield whole
