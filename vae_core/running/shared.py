"""How does one of several ranks do its share of the work on a clip?

As everybody does (`execute`), for its own rows, and after each step:

1. The statistics of what was written are put together from those of all ranks.
2. Rows that others will read set out to them. The step after it begins with the tiles that read
   nothing but rows of this rank's own; theirs are waited for when a tile needs them, or the step
   has run.

When a chunk is done the result's rows go to whoever is to have them. What fails on one rank ends
all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from ..errors import ParallelError, SettingsError
from ..geometry.grid import Chunk
from ..geometry.region import Interval, Region
from ..planning.exchanged import frames_made
from ..planning.plan import Plan
from ..program.moments import Moments
from ..program.parts import Attend
from ..program.shares import Move, shares_of
from ..program.steps import Step
from ..settings import Given, Progress
from .agreement import check_alike
from .course import reads_own
from .exchange import Exchange, Wait
from .execute import Execution
from .framewise import moments_of
from .kernels import statistics_dtype
from .task import Pass, Task
from .weights import Weights

Report = Callable[[Progress], object]


@dataclass(frozen=True, slots=True)
class _Coming:
    """Rows that are on their way.

    step: that has written them. moves, rooms: what will be there, once `wait` has been called.
    sent: is kept for as long.
    """

    step: Step
    moves: list[Move]
    rooms: dict[int, Tensor]
    sent: dict[int, Tensor]
    wait: Wait


class SharedExecution(Execution):
    """One rank's share of a run; see `Execution`."""

    def __init__(
        self, weights: Weights, plan: Plan, report: Report | None, exchange: Exchange
    ) -> None:
        super().__init__(plan.job.program, weights, plan, report)
        self._exchange, self._rank = exchange, exchange.rank()
        self._given, self._rows = plan.settings.parallel_result, plan.result_rows
        self._dtype = statistics_dtype(weights.dtype)
        self._device = weights.device
        self._shares = shares_of(plan.job.program, plan.job.source.h, exchange.size())
        self._coming: list[_Coming] = []

    def run(self, chunk: Chunk, source: Tensor, sink: Tensor, *, last: bool) -> None:
        """See `Execution.run`. Of the sink the rows that this rank is to be given are written."""
        with torch.inference_mode(), self._together():
            self._compare(source, last)
            own = self._own(self._program.sink)
            band = self._band(source, sink, own, chunk)
            super().run(self._shared(chunk), source, band, last=last)
            self._exchange.agree()
            self._deliver(band, sink)

    def gather(self, chunk: Chunk, source: Tensor, *, last: bool) -> None:
        """See `Execution.gather`."""
        with torch.inference_mode(), self._together():
            self._compare(source, last)
            super().gather(self._shared(chunk), source, last=last)

    def _compare(self, source: Tensor, last: bool) -> None:
        """All ranks have the same of a clip before them."""
        check_alike(source, last, self._exchange)

    def _shared(self, chunk: Chunk) -> Chunk:
        return replace(chunk, share=self._shares.ranks[self._rank])

    def _own(self, store: int, rank: int | None = None) -> Interval:
        """The rows of a store that a rank makes, by default this one."""
        return self._shares.ranks[self._rank if rank is None else rank].own[store]

    def _band(self, source: Tensor, sink: Tensor, own: Interval, chunk: Chunk) -> Tensor:
        """Where the result's own rows go: into the sink, where it has them."""
        if self._rows.contains(own):
            start = self._rows.start
            return sink[..., own.start - start : own.stop - start, :]
        b, c, t, _, w = sink.shape
        return sink.new_empty(b, c, t, own.size, w)

    def _deliver(self, band: Tensor, sink: Tensor) -> None:
        """Send the result's rows to those that have all of them."""
        if self._given is Given.BANDS:
            return
        everyone = range(self._exchange.size())
        takers = everyone if self._given is Given.ALL else range(1)
        outgoing = {
            to: self._exchange.staged(band) for to in takers if to != self._rank and band.numel()
        }
        incoming: dict[int, tuple[Tensor, Tensor]] = {}
        for of in everyone if self._rank in takers else ():
            rows = self._own(self._program.sink, of)
            target = sink[..., rows.start : rows.stop, :]
            if of != self._rank and target.numel():
                room = torch.empty(target.shape, dtype=target.dtype, device=target.device)
                incoming[of] = target, self._exchange.staged(room)
        self._exchange.swap(outgoing, {of: room for of, (_, room) in incoming.items()})()
        for target, room in incoming.values():
            target.copy_(room)

    def _copy_first(self, step: Step, at: Pass, rows: Interval) -> None:
        share = at.chunk.share
        assert share
        own = share.own[step.dst]
        here, there = (own.within(share.held[store]) for store in (step.dst, step.src))
        first = at.whole(step.src)[:, :, :1, there]
        at.whole(step.dst)[:, :, :1, here].copy_(first)

    def _run_all(self, steps: range, at: Pass, last: bool) -> None:
        super()._run_all(steps, at, last)
        self._arrive(at)

    def _run_tiles(self, index: int, at: Pass, last: bool, rows: Interval | None) -> None:
        step = self._program.steps[index]
        on_its_way = {coming.step.dst for coming in self._coming}
        added = step.residual.store if step.residual else None
        if isinstance(step.mix, Attend) or step.src not in on_its_way or added in on_its_way:
            self._arrive(at)
        super()._run_tiles(index, at, last, rows)

    def _run_pieces(self, index: int, task: Task, cells: Region, following: Region | None) -> None:
        if self._coming:
            if not self._is_inner(task, cells):
                self._arrive(task.at)
            elif following and not self._is_inner(task, following):
                following = None  # what it will read cannot be fetched yet
        super()._run_pieces(index, task, cells, following)

    @staticmethod
    def _is_inner(task: Task, cells: Region) -> bool:
        return reads_own(task.of(cells).step, task.src, task.at.chunk, cells.h)

    def _end(self, index: int, at: Pass) -> None:
        self._arrive(at)
        self._exchanged(index, at)
        super()._end(index, at)

    def _exchanged(self, index: int, at: Pass) -> None:
        """Every rank comes to know what it needs of what a step has written; rows are on their way
        to it.
        """
        step, band = self._program.steps[index], at.chunk.band
        at.moments.pop(step.src, None)  # where this rank made nothing of them
        wanted, moves = self._program.norm_to_come(index), self._shares.moves[index]
        if (band and not band.cells[step.dst].size) or not (wanted or moves):
            return
        self._exchange.agree()
        if wanted:
            at.moments[step.dst] = self._merged(step, at, wanted.groups, wanted.per_frame)
        for _, alike in groupby(moves, lambda move: move.channels):
            self._coming.append(self._set_out(step, at, list(alike)))

    def _merged(self, step: Step, at: Pass, groups: int, per_frame: bool) -> Moments:
        """The moments of what all ranks have made of a step's dst. Every row holds as many voxels,
        so that rows stand for them.
        """
        mine = at.moments.get(step.dst)
        shape = at.shape(0, at.extents[step.dst])
        if mine is None:
            frames = (shape[2],) if per_frame else ()
            found = torch.zeros(2, shape[0], *frames, groups, dtype=self._dtype)
        else:
            moments = moments_of(mine, groups)
            found = torch.stack((moments.mean, moments.variance))
        every = self._exchange.gather(self._exchange.staged(found))
        merged = None
        for rank, (mean, variance) in enumerate(every):
            count = self._own(step.dst, rank).size
            if count:
                part = Moments(count, mean, variance * count)
                merged = merged.merge(part) if merged else part
        assert merged
        return Moments(1, merged.mean.to(self._device), merged.variance.to(self._device))

    def _set_out(self, step: Step, at: Pass, moves: list[Move]) -> _Coming:
        """Start to send and receive rows of some channels of what a step has written."""
        leaving = {m.to: self._part(step, at, m) for m in moves if m.of == self._rank}
        sent = {to: self._exchange.staged(part) for to, part in leaving.items()}
        mine = [move for move in moves if move.to == self._rank]
        rooms = {move.of: self._room(self._part(step, at, move)) for move in mine}
        return _Coming(step, mine, rooms, sent, self._exchange.swap(sent, rooms))

    def _room(self, part: Tensor) -> Tensor:
        like = torch.empty_like(part, memory_format=torch.contiguous_format)
        return self._exchange.staged(like)

    def _arrive(self, at: Pass) -> None:
        """Wait for the rows that are on their way, and put them where they belong."""
        coming, self._coming = self._coming, []
        for one in coming:
            one.wait()
            for move in one.moves:
                self._part(one.step, at, move).copy_(one.rooms[move.of])

    def _part(self, step: Step, at: Pass, move: Move) -> Tensor:
        """Rows of what has been written, as they lie in the store: of a band its frames alone."""
        share, x = at.chunk.share, at.whole(step.dst)
        assert share
        first, stop = move.channels
        return x[:, first:stop, self._frames(step, at), move.rows.within(share.held[step.dst]), :]

    @staticmethod
    def _frames(step: Step, at: Pass) -> slice:
        made = frames_made(step, at.src(step), at.chunk).shift(-at.chunk.origin(step.dst))
        return slice(made.start, made.stop)

    @contextmanager
    def _together(self) -> Generator[None]:
        """A block that ends all ranks where it fails on one."""
        try:
            yield
        except (ParallelError, SettingsError):  # which every rank raises by itself
            raise
        except BaseException as error:
            for coming in self._coming:  # whose memory is written to until then
                with suppress(Exception):
                    coming.wait()
            with suppress(ParallelError):
                self._exchange.fail(f"{type(error).__name__}: {error}".strip(": "))
            raise
