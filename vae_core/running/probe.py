"""What does each route of convolutions really do on a device: is it right, lean, quick?

For every class of convolutions that nobody has asked about yet, and every route:

1. Convolve two inputs of different sizes, and compare corners of each result, all channels and
   frames, with the same in float32 on the processor.
2. The allocator's peak above what was held, less the result, is what the route allocated; the two
   sizes give a line.
3. The larger one is run again and timed; so is a copy there and back.

What else a tile is made of has no choice of routes; there it is only asked whether it is right.
Random numbers of the process are left alone. The peak of the device's allocator is set back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from math import ceil, isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from ..planning.routes import Finding, Route, Table
from ..planning.workspaces import ConvClass, Workspace
from .cards import Card
from .convolutions import by_route, laid_out_for
from .probe_operations import wrong_operations
from .recovery import is_out_of_memory
from .tolerance import distance, tolerance

SIZES_BYTES = (2**20, 2**24)
"""Of the input and the result of the two convolutions, about."""

_CELL_FRAMES = 2
_CORNER = 4
_COPIED_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Sample:
    """One convolution to be tried: input and weight on the device.

    wanted: corners of the right result, on the processor.
    """

    x: Tensor
    weight: Tensor
    strides: tuple[int, int, int]
    wanted: tuple[Tensor, ...]

    @property
    def _out_count(self) -> int:
        """Elements of the result."""
        _, _, *sides = self.x.shape
        taps = self.weight.shape[2:]
        count = self.weight.shape[0]
        for side, tap, stride in zip(sides, taps, self.strides, strict=True):
            count *= (side - tap) // stride + 1
        return count

    @property
    def out_bytes(self) -> int:
        """Bytes of the result."""
        return self._out_count * self.x.element_size()

    @property
    def operations(self) -> int:
        """Floating point operations: two a multiply-add."""
        return 2 * self._out_count * self.weight[0].numel()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one run of a sample showed; used_bytes: beside the result, None where nobody tells."""

    error: float
    used_bytes: int | None
    data_bytes: int


def probe(card: Card, dtype: torch.dtype, known: Table, kinds: Collection[ConvClass]) -> Table:
    """`known` with what the routes of `kinds` do that are not in it yet.

    Raises what the device raises where memory for it runs out.
    """
    found = dict(known.found)
    for kind in sorted(set(kinds) - set(found), key=repr):
        found[kind] = tuple(_findings(card, dtype, kind))
    wrong = known.wrong if known.found else tuple(wrong_operations(card, dtype))
    copied = known.copied or copied_per_second(card)
    return Table(card.title(), found, wrong, known.raised, copied)


def _findings(card: Card, dtype: torch.dtype, kind: ConvClass) -> Iterator[Finding]:
    samples = [sample_of(card, dtype, kind, size) for size in SIZES_BYTES]
    for route in Route:
        if not _is_needless(route, kind):
            yield _tried(card, dtype, route, samples)


def _is_needless(route: Route, kind: ConvClass) -> bool:
    return route is Route.PICTURES and kind.taps == (1, 1, 1)


def _tried(card: Card, dtype: torch.dtype, route: Route, samples: list[Sample]) -> Finding:
    """What a route does; one that the device refuses is not right."""
    operations = samples[-1].operations
    try:
        samples = [replace(one, weight=laid_out_for(route, one.weight)) for one in samples]
        seen = [_run(card, route, sample) for sample in samples]
        seconds = _timed(card, route, samples[-1])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return Finding(route, False, None, None, None, 0.0)
    error = max(one.error for one in seen)
    right = error <= tolerance(dtype)
    last = seen[-1]
    share = None if last.used_bytes is None else last.used_bytes / last.data_bytes
    known = error if error < float("inf") else None
    return Finding(route, right, known, share, _line(seen), seconds, operations)


def _run(card: Card, route: Route, sample: Sample) -> _Seen:
    """Convolve twice: the first time a library may choose, and allocate, otherwise."""
    used: list[int] = []
    result = None
    for _ in range(2):
        del result
        card.seconds()
        card.start_peak()
        before = card.allocated_bytes()
        result = by_route(route, sample.x, sample.weight, None, sample.strides)
        card.seconds()
        peak = card.peak_bytes()
        if before is not None and peak is not None:
            used.append(max(peak - before - result.nbytes, 0))
    assert result is not None
    error = max(map(distance, _corners(result), sample.wanted))
    return _Seen(error, max(used, default=None), sample.x.nbytes + result.nbytes)


def _timed(card: Card, route: Route, sample: Sample) -> float:
    taken: list[float] = []
    for _ in range(2):
        start = card.seconds()
        by_route(route, sample.x, sample.weight, None, sample.strides)
        taken.append(card.seconds() - start)
    return min(taken)


def copied_per_second(card: Card) -> float:
    """Bytes a second between host memory that the device reaches by itself and the device, by the
    slower of the two ways; 0 where its clock does not tell.
    """
    if card.device.type == "meta":
        return 0.0
    pins, size = card.device.type == "cuda", _COPIED_BYTES
    host = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pins)
    there = torch.empty(size, dtype=torch.uint8, device=card.device)
    ways: dict[bool, float] = {}
    for back in (False, True, False, True):  # the second time it is warm
        start = card.seconds()
        host.copy_(there) if back else there.copy_(host)
        ways[back] = card.seconds() - start
    slower = max(ways.values())
    return _COPIED_BYTES / slower if slower > 0 else 0.0


def _line(seen: list[_Seen]) -> Workspace | None:
    """A line above both points; no less for more data."""
    (low, small), (high, large) = ((one.used_bytes, one.data_bytes) for one in seen)
    if low is None or high is None:
        return None
    slope = max((high - low) / max(large - small, 1), 0.0)
    base = max(low - slope * small, high - slope * large, 0)
    return Workspace(ceil(base), slope, slope)


def sample_of(card: Card, dtype: torch.dtype, kind: ConvClass, size_bytes: int) -> Sample:
    """A convolution of a class whose input and result have about `size_bytes`."""
    strides = (kind.stride_t, kind.stride, kind.stride)
    channels = kind.in_channels * kind.stride**2 * kind.stride_t + kind.out_channels
    cells = size_bytes // (channels * _CELL_FRAMES * dtype.itemsize)
    side = max(isqrt(cells), 2 * _CORNER)
    sides = [
        (cell - 1) * stride + tap
        for cell, stride, tap in zip((_CELL_FRAMES, side, side), strides, kind.taps, strict=True)
    ]
    x = _numbers((1, kind.in_channels, *sides), dtype, 65521)
    weight = _numbers((kind.out_channels, kind.in_channels, *kind.taps), dtype, 65519)
    weight.mul_((kind.in_channels * kind.taps[0] * kind.taps[1] * kind.taps[2]) ** -0.5)
    wanted = tuple(
        exact(x[..., h, w], weight, strides)
        for h, w in (_seen_by_corner(sides, kind, corner) for corner in (0, 1))
    )
    last = torch.channels_last_3d
    there, kernel = (one.to(card.device).contiguous(memory_format=last) for one in (x, weight))
    return Sample(there, kernel, strides, wanted)


def _numbers(shape: tuple[int, ...], dtype: torch.dtype, period: int) -> Tensor:
    """Numbers that look random, [b, c, t, h, w] on the processor; they repeat after `period` of
    them, which must not be a multiple of anything here.
    """
    generator = torch.Generator("cpu").manual_seed(period)
    some = torch.randn(period, generator=generator, device="cpu").to(dtype)
    count = torch.Size(shape).numel()
    return some.repeat(count // period + 1)[:count].view(shape)


def _seen_by_corner(sides: list[int], kind: ConvClass, corner: int) -> tuple[slice, slice]:
    """Rows and columns that the first (0) or last (1) few results see."""
    found: list[slice] = []
    for side, tap in zip(sides[1:], kind.taps[1:], strict=True):
        seen = (_CORNER - 1) * kind.stride + tap
        found.append(slice(side - seen, side) if corner else slice(0, seen))
    return found[0], found[1]


def _corners(result: Tensor) -> tuple[Tensor, Tensor]:
    """Its first and its last few rows and columns, on the processor."""
    first, last = slice(0, _CORNER), slice(-_CORNER, None)
    return result[..., first, first].cpu(), result[..., last, last].cpu()


def exact(x: Tensor, weight: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """x convolved on the processor, in float32 or wider."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return F.conv3d(x.to(wide), weight.to(wide), stride=strides)
