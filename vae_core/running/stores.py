"""Where do activations live, and how is one made there?

A store lives on the device that computes, in host memory, or in a temporary file that is mapped
into memory. The file has no name that could be left behind: the operating system frees it when the
process ends, however it ends.

Its memory is channels last, wherever it lives: convolutions are at their quickest, all else has
long innermost runs and needs no more than a vector of the channels' own scales, and the rows of a
frame are one piece, which can be copied as such.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from math import ceil, floor, prod

import torch
from torch import Tensor

from ..errors import BudgetError, DiskError
from ..planning.plan import Plan, size_text
from ..planning.pool import Pool
from ..program.steps import SOURCE
from ..settings import Place, Placement
from .pinned import Pinned

_LOG = logging.getLogger("vae_core")


def reserve(plan: Plan) -> None:
    """Say that a plan will use a temporary file, and refuse it where the disk has no room.

    Raises `BudgetError` with both numbers.
    """
    if plan.placement is not Placement.MMAP:
        return
    folder, needed_bytes = tempfile.gettempdir(), plan.far_bytes + _ROUNDING_BYTES
    free_bytes, needed = shutil.disk_usage(folder).free, size_text(needed_bytes, ceil)
    if needed_bytes > free_bytes:
        raise BudgetError(
            f"a temporary file of {needed} is needed in {folder}, which has"
            f" {size_text(free_bytes, floor)} free. Free some, or name another folder in TMPDIR.",
            projected_bytes=needed_bytes,
            budget_bytes=free_bytes,
            smallest_bytes=needed_bytes,
            worst_path=plan.worst.path,
        )
    _LOG.warning("activations of %s go to a temporary file in %s", needed, folder)


def allocate(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    place: Place,
    pinned: Pinned | None = None,
) -> Tensor:
    """An unwritten tensor of `shape` [b, c, t, h, w] in `place`, to be computed with on `device`;
    its memory goes with its last reference.

    pinned: where host memory comes from, for as long as it has some.
    """
    if place is Place.HOST and pinned is not None:
        found = pinned.take(shape, dtype)
        if found is not None:
            return found
    if place is Place.DISK:
        return laid_out(_mapped(prod(shape), dtype), shape)
    where = device if place is Place.DEVICE else "cpu"
    return torch.empty(shape, dtype=dtype, device=where, memory_format=torch.channels_last_3d)


def new_result(plan: Plan, frames: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A result of `frames` frames for a plan, not written yet: [b, c, frames, h, w], with the rows
    that are given here.
    """
    program, source = plan.job.program, plan.job.source
    source_spec, sink_spec = program.stores[SOURCE], program.stores[program.sink]
    height, width = plan.result_rows.size, source.w * source_spec.px // sink_spec.px
    shape = (plan.job.batch, sink_spec.channels, frames, height, width)
    return torch.empty(shape, dtype=dtype, device=device)


_ROUNDING_BYTES = 2**20
"""A file takes whole blocks of a disk, and some for itself; so many bytes are more than that for
all of a run.
"""


def _mapped(count: int, dtype: torch.dtype) -> Tensor:
    """A tensor [count] in a nameless temporary file, whose blocks are reserved at once where that
    can be.

    Raises `DiskError` where the disk has no room.
    """
    size = count * dtype.itemsize
    if not size:  # no system maps a file of nothing
        return torch.empty(0, dtype=dtype, device="cpu")
    with disk_room(), tempfile.TemporaryFile(prefix="exact_video_vae_") as file:
        _reserve_blocks(file.fileno(), size)
        memory = mmap.mmap(file.fileno(), size)
    return torch.frombuffer(memory, dtype=dtype)


def _reserve_blocks(number: int, size: int) -> None:
    """Make an open file `size` bytes long, with blocks of its own where the file system can."""
    try:
        os.posix_fallocate(number, 0, size)
    except AttributeError:  # not in every operating system
        os.truncate(number, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.truncate(number, size)


@contextmanager
def disk_room() -> Generator[None]:
    """Turns what the system says of a full disk, a quota or a limit into a `DiskError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DiskError(
            f"the disk of {tempfile.gettempdir()} has no room for a temporary file"
            f" ({error.strerror}). Free some, or name another folder in TMPDIR."
        ) from error


def laid_out(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The start of `flat` [n] as a tensor of `shape` [b, c, t, h, w], channels last."""
    b, c, t, h, w = shape
    return flat[: prod(shape)].view(b, t, h, w, c).permute(0, 4, 1, 2, 3)


def packed(outer: Tensor, channels: int) -> Tensor:
    """A tensor of the first rows of each frame of `outer` [b, c, t, h, w], which is channels last:
    [b, channels, t, h, w], its rows one after the other.
    """
    b, _, t, h, w = outer.shape
    to_b, _, to_t, _, _ = outer.stride()
    return outer.as_strided((b, channels, t, h, w), (to_b, 1, to_t, w * channels, channels))


class Room:
    """Memory on a device for one passing tensor after another, kept while they need as much.

    On a processor memory that was never used before costs as much as what is done with it, and what
    an allocator is given back at the end of its heap it gives to the system. On an accelerator one
    piece, used again, leaves no holes.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._flat: Tensor | None = None
        self._wanted = 0

    @property
    def held(self) -> int:
        """Elements of the memory that there is."""
        return 0 if self._flat is None else self._flat.numel()

    def expect(self, count: int) -> None:
        """Tensors of up to `count` elements come next; memory for any other count is let go."""
        self._wanted = count
        if self.held != count:
            self._flat = None

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """An unwritten tensor of `shape` [b, c, t, h, w]; the one before it is overwritten.

        Where there is no memory for what was expected, the next call asks for no more than it
        needs.
        """
        if self._flat is None or self.held < prod(shape):
            count, self._wanted = max(self._wanted, prod(shape)), 0
            self._flat = None
            self._flat = torch.empty(count, dtype=self._dtype, device=self._device)
        return laid_out(self._flat, shape)


class Reused:
    """Stores from memory that earlier ones have left, as `pool` says."""

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        place: Place,
        pinned: Pinned | None = None,
    ) -> None:
        self._dtype, self._device, self._place, self._pinned = dtype, device, place, pinned
        self._pool, self._blocks = Pool(), dict[int, Tensor]()

    def take(self, store: int, shape: tuple[int, ...]) -> Tensor:
        """An unwritten tensor for `store`."""
        block = self._pool.take(store, prod(shape) * self._dtype.itemsize)
        held = {block.number for block in self._pool.blocks}
        self._blocks = {number: x for number, x in self._blocks.items() if number in held}
        if block.number not in self._blocks:
            try:
                line = (1, 1, 1, 1, prod(shape))
                made = allocate(line, self._dtype, self._device, self._place, self._pinned)
            except BaseException:
                self.clear()
                raise
            self._blocks[block.number] = made.flatten()
        return laid_out(self._blocks[block.number], shape)

    def give(self, store: int) -> None:
        """`store` is gone, if it was ours."""
        if store in self._pool.taken:
            self._pool.give(store)

    def clear(self) -> None:
        """Let go of all memory that no tensor uses."""
        self._pool, self._blocks = Pool(), {}
