"""How do latents get into a file and out of it without ever being in memory as a whole?

Writing, where nobody knows the number of frames before the last one has come:
1. `MomentSpool` takes an encoder's moments chunk by chunk into a nameless temporary file beside the
   result, frame after frame.
2. `write_spooled` lays them out as a latent file (see `latent_file.py`), a channel at a time.

Reading:
3. `LatentFile` checks a file whole, and then gives any run of its latent frames.

The files are those of `latent_file.py`, and the same bytes for the same latents. Files are read and
written plainly, not mapped: mapped pages would count as memory held.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError, VideoError
from ..families.conventions import UNSCALED, Convention, Form
from ..geometry.region import Interval
from .files import check_input, plainly_named, whole_file
from .latent_file import (
    LATENT_KEY,
    VERSION_KEY,
    LatentMeta,
    check_family,
    check_kind,
    check_latents,
    check_told,
    form_of,
    meta_of,
    strings_of,
)

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
_ALIGNMENT = 8
_RUN_FRAMES = 16


class MomentSpool:
    """Moments [1, 2c, t, h, w] of a clip, put aside chunk by chunk: a context manager.

    Invariant: `frames` latent frames lie in a temporary file as float32, [frames, 2c, h, w]. Raises
    `InputError` for values that are not finite, `VideoError` where there is no room.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, prefix=".moments.")  # noqa: SIM115
        except OSError as error:
            raise VideoError(f"cannot write to {folder}: {error.strerror}.") from error
        self._folder = folder
        self._plane: tuple[int, int, int] = (0, 0, 0)  # (2c, h, w)
        self.dtype = torch.float32
        self.frames = 0

    def __enter__(self) -> MomentSpool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """[1, c, t, h, w] of the latents."""
        channels, h, w = self._plane
        return 1, channels // 2, self.frames, h, w

    def add(self, moments: Tensor) -> None:
        """The next chunk, [1, 2c, t, h, w]."""
        if not bool(torch.isfinite(moments).all()):
            raise InputError(
                "latents must be finite; the encoder gave NaN or infinity. With float16, try"
                " bfloat16 or float32."
            )
        _, channels, count, h, w = moments.shape
        self._plane, self.dtype = (channels, h, w), moments.dtype
        rows = moments[0].transpose(0, 1).to("cpu", torch.float32)  # [t, 2c, h, w]
        try:
            self._file.write(rows.contiguous().numpy().data)
        except OSError as error:
            raise VideoError(f"cannot write to {self._folder}: {error.strerror}.") from error
        self.frames += count

    def frame(self, index: int) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of variance of one latent frame, [c, h, w] each."""
        size = prod(self._plane)
        self._file.seek(4 * index * size)
        both = _floats(self._file.read(4 * size)).view(self._plane)
        mean, logvar = both.chunk(2)
        return mean, logvar

    def plane(self, channel: int, frames: Interval) -> Tensor:
        """A run of frames of one of the 2c channels, [t, h, w]."""
        channels, h, w = self._plane
        found = np.empty((frames.size, h, w), np.float32)
        for index, frame in enumerate(range(frames.start, frames.stop)):
            self._file.seek(4 * (frame * channels + channel) * h * w)
            found[index] = np.frombuffer(self._file.read(4 * h * w), np.float32).reshape(h, w)
        return torch.from_numpy(found)


def _floats(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


@dataclass(frozen=True, slots=True)
class Kept:
    """What of the moments a file shall hold.

    moments: mean and logvar beside the latents. seed: of a sample; None for the likeliest latents.
    form: how the latents lie.
    """

    moments: bool = False
    seed: int | None = None
    form: Form = UNSCALED


def _noise(spool: MomentSpool, seed: int) -> Tensor:
    """The noise that `Posterior.sample` draws with that seed: all of it at once, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(spool.shape, generator=generator, device="cpu")[0]  # [c, t, h, w]


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the latents as it follows in the file: mean, logarithm of variance, and noise
    where a sample is drawn.

    channel: whose it is; None for all of them.
    """

    mean: Tensor
    logvar: Tensor | None
    noise: Tensor | None
    channel: int | None = None

    def latents(self, dtype: torch.dtype) -> Tensor:
        """The sample, in the encoder's own dtype as `Posterior.sample` does it; or the mean."""
        if self.logvar is None or self.noise is None:
            return self.mean
        mean, logvar, noise = (x.to(dtype) for x in (self.mean, self.logvar, self.noise))
        return (mean + torch.exp(0.5 * logvar) * noise).to(torch.float32)


def _parts(spool: MomentSpool, kept: Kept) -> Iterator[_Part]:
    """The latents in the file's order: frame by frame, or channel by channel in runs of frames."""
    noise = None if kept.seed is None else _noise(spool, kept.seed)
    if kept.form.convention is Convention.KIJAI:
        for frame in range(spool.frames):
            mean, logvar = spool.frame(frame)
            yield _Part(mean, logvar, None if noise is None else noise[:, frame])
        return
    channels = spool.shape[1]
    for channel in range(channels):
        for run in _runs(spool.frames):
            drawn = None if noise is None else noise[channel, run.start : run.stop]
            logvar = None if noise is None else spool.plane(channels + channel, run)
            yield _Part(spool.plane(channel, run), logvar, drawn, channel)


def _runs(frames: int) -> Iterator[Interval]:
    """[0, frames) in runs, so that memory is the same for every length."""
    for start in range(0, frames, _RUN_FRAMES):
        yield Interval(start, min(start + _RUN_FRAMES, frames))


def _latents(spool: MomentSpool, kept: Kept) -> Iterator[Tensor]:
    """What the file holds of the latents, piece by piece."""
    for part in _parts(spool, kept):
        yield kept.form.scaled(part.latents(spool.dtype), part.channel)


def _moments(spool: MomentSpool, first_channel: int) -> Iterator[Tensor]:
    """Half of the moments, piece by piece."""
    for channel in range(first_channel, first_channel + spool.shape[1]):
        for run in _runs(spool.frames):
            yield spool.plane(channel, run)


def write_spooled(path: Path, spool: MomentSpool, meta: LatentMeta, kept: Kept) -> None:
    """Write a latent file of what `spool` holds; it appears when it is complete.

    Memory grows with the clip only where a sample is drawn, by the size of its latents: the noise
    is the same for every chunking.
    """
    b, c, t, h, w = spool.shape
    turned = kept.form.convention is Convention.KIJAI
    shapes: dict[str, Sequence[int]] = {
        LATENT_KEY: (b, t, c, h, w) if turned else (b, c, t, h, w),
        VERSION_KEY: (0,),
    }
    parts: list[Iterator[Tensor]] = [_latents(spool, kept)]
    if kept.moments:
        shapes |= {"logvar": spool.shape, "mean": spool.shape}
        parts += [_moments(spool, c), _moments(spool, 0)]
    with whole_file(path) as part, part.open("wb") as file:
        file.write(safetensors_header(shapes, strings_of(meta, kept.form)))
        for tensors in parts:
            for tensor in tensors:
                file.write(tensor.contiguous().numpy().data)


def safetensors_header(
    shapes: Mapping[str, Sequence[int]], said: Mapping[str, str], dtype: torch.dtype = torch.float32
) -> bytes:
    """The beginning of a safetensors file whose tensors follow in this order.

    The same words always make the same bytes, which safetensors' own writer does not promise.
    """
    table: dict[str, Any] = {"__metadata__": dict(sorted(said.items()))}
    word = next(word for word, kind in _DTYPES.items() if kind == dtype)
    at = 0
    for name, shape in shapes.items():
        size = dtype.itemsize * prod(shape)
        table[name] = {"dtype": word, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


class LatentFile:
    """The latents of a file, read run by run: a context manager, and a `frame_feed.FrameRuns`.

    shape: [b, c, t, h, w]. meta: what the file says. family: whose latents it shall
    hold. Raises as `latent_file.load_latents` does, for any of its values, when it is made.
    """

    device = torch.device("cpu")

    def __init__(
        self, path: str | Path, form: Form | None = None, family: str | None = None
    ) -> None:
        self._path = Path(path)
        check_input(self._path)
        stored, said, self._offset = self._header()
        self.meta, self._form = meta_of(self._path, said), form_of(self._path, said, form)
        self._stored: tuple[int, ...] = tuple(stored["shape"])
        check_family(self._path, self.meta, family)
        whose = self.meta.family or family
        check_told(self._path, self._stored, self._form, whose)
        self._dtype = _DTYPES.get(stored["dtype"], torch.int32)
        shape = self.shape if len(self._stored) == 5 else self._stored
        check_kind(str(path), torch.empty(shape, dtype=self._dtype, device="meta"), whose)
        self._file: IO[bytes] = self._path.open("rb")
        try:
            for first in range(0, self.shape[2], _RUN_FRAMES):
                stop = min(first + _RUN_FRAMES, self.shape[2])
                check_latents(str(path), self.take(Interval(first, stop)), whose)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> LatentFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """[b, c, t, h, w], however they lie in the file."""
        b, x, y, h, w = self._stored
        return (b, y, x, h, w) if self._form.convention is Convention.KIJAI else (b, x, y, h, w)

    def _header(self) -> tuple[dict[str, Any], dict[str, str], int]:
        """What the file says of the latents' tensor and in its metadata, and where data begin."""
        try:
            # Its own reader checks that the file is whole; it touches no data.
            opened: Any = safe_open
            with plainly_named(self._path) as name, opened(name, framework="pt") as file:
                keys: list[str] = sorted(file.keys())
            with self._path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                table: dict[str, Any] = json.loads(file.read(size))
        except (SafetensorError, OSError, ValueError) as error:
            raise VideoError(
                f"{self._path} is no latent file: it is not readable as safetensors."
            ) from error
        if LATENT_KEY not in keys:
            found = ", ".join(keys[:4]) or "nothing"
            raise InputError(
                f"latents lie under the key {LATENT_KEY!r}; {self._path} holds {found}."
            )
        stored = table[LATENT_KEY]
        return stored, table.get("__metadata__") or {}, 8 + size + stored["data_offsets"][0]

    def take(self, frames: Interval) -> Tensor:
        """Latent frames [frames.start, frames.stop), float32 [b, c, t, h, w], unscaled."""
        b, x, y, h, w = self._stored
        plane = h * w * self._dtype.itemsize
        data = bytearray()
        if self._form.convention is Convention.KIJAI:
            shape = (b, frames.size, y, h, w)
            for clip in range(b):
                data += self._bytes((clip * x + frames.start) * y * plane, frames.size * y * plane)
        else:
            shape = (b, x, frames.size, h, w)
            for channel in range(b * x):
                data += self._bytes((channel * y + frames.start) * plane, frames.size * plane)
        stored = torch.frombuffer(data, dtype=self._dtype).view(shape)
        return self._form.undo(stored.to(torch.float32)).contiguous()

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(self._offset + at)
        return self._file.read(count)
