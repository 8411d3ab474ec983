"""What did encoding and decoding a clip do to it, and at what cost?

1. `compare` measures a reconstruction against its source, on 8-bit frames as a viewer gets them.
2. `Report` holds these figures with the run's own, and gives them as text and as JSON.

It runs nothing and draws nothing: the command line hands it what was measured, and
`contact_sheet.py` draws.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ..errors import counted
from ..media.video import Frame, Frames

_WHITE = 255


@dataclass(frozen=True, slots=True)
class Likeness:
    """How near two clips are. PSNR in dB against 255; None where they are identical.

    psnr_db: over all frames together. frame_psnr_db: of each frame.
    """

    psnr_db: float | None
    frame_psnr_db: tuple[float | None, ...]

    @property
    def worst_frame_db(self) -> float | None:
        """The lowest PSNR of a frame."""
        return min((value for value in self.frame_psnr_db if value is not None), default=None)


def _psnr_db(mean_square: float) -> float | None:
    return 10 * math.log10(_WHITE**2 / mean_square) if mean_square else None


@dataclass(slots=True)
class FrameErrors:
    """Mean squared errors of the frames compared so far. Invariant: frames == len(squares)."""

    squares: list[float] = field(default_factory=list[float])

    @property
    def frames(self) -> int:
        """How many frames have been compared."""
        return len(self.squares)

    def add(self, source: Frame, reconstruction: Frame) -> None:
        """Compare one frame with another, both uint8 [h, w, 3] of one shape."""
        apart = source.astype(np.float32) - reconstruction
        self.squares.append(float(np.square(apart, dtype=np.float32).mean(dtype=np.float64)))

    def likeness(self) -> Likeness:
        """How near the frames so far are."""
        whole = _psnr_db(sum(self.squares) / len(self.squares))
        return Likeness(whole, tuple(map(_psnr_db, self.squares)))


def compare(source: Frames, reconstruction: Frames) -> Likeness:
    """PSNR of `reconstruction` against `source`, both uint8 [t, h, w, 3] of one shape."""
    errors = FrameErrors()
    for a, b in zip(source, reconstruction, strict=True):
        errors.add(a, b)
    return errors.likeness()


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two results lie apart.

    largest: absolute difference. value_range: largest minus smallest value of the reference.
    """

    largest: float
    value_range: float

    @property
    def share(self) -> float:
        """The largest difference as a share of the range; 0 where nothing differs."""
        return self.largest / self.value_range if self.largest else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one round trip.

    clip, vae, dtype, device: what ran, on what.
    sample_frames, height_px, width_px: of the clips compared. fps: sample frames a second.
    latent_shape: [b, c, t, h, w].
    likeness: of the reconstruction to the source.
    tiling: "exact" or "off".
    latents_apart, pixels_apart: tiled from untiled, each from one input; None where not compared.
    plan: of encode and of decode.
    peak_bytes: most memory held during both, None where unknown. peak_kind: what was counted.
    encode_seconds, decode_seconds: without reading, writing and loading.
    notes: what padding, cropping and reading did, in sentences.
    """

    clip: str
    vae: str
    dtype: str
    device: str
    sample_frames: int
    height_px: int
    width_px: int
    fps: float
    latent_shape: tuple[int, ...]
    likeness: Likeness
    tiling: str
    latents_apart: Difference | None
    pixels_apart: Difference | None
    plan: dict[str, Any]
    peak_bytes: int | None
    peak_kind: str
    encode_seconds: float
    decode_seconds: float
    notes: tuple[str, ...]

    @property
    def max_difference(self) -> float | None:
        """The largest difference that tiling made, as a share of the range it is in."""
        parts = [one.share for one in (self.latents_apart, self.pixels_apart) if one is not None]
        return max(parts, default=None)

    @property
    def seconds(self) -> float:
        """Encode and decode together."""
        return self.encode_seconds + self.decode_seconds

    def as_dict(self) -> dict[str, Any]:
        """Every figure by name, ready for JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values |= asdict(values.pop("likeness"))
        for name in ("latents_apart", "pixels_apart"):
            values[name] = None if values[name] is None else asdict(values[name])
        return values | {
            "worst_frame_db": self.likeness.worst_frame_db,
            "max_difference": self.max_difference,
            "seconds": self.seconds,
        }

    def lines(self) -> list[tuple[str, str]]:
        """The figures as pairs of a name and a value for readers."""
        like = self.likeness
        size = f"{counted(self.sample_frames, 'frame')} of {self.height_px}x{self.width_px} px"
        return [
            ("clip", f"{self.clip}: {size} at {self.fps:.4g} a second"),
            ("vae", f"{self.vae}, {self.dtype} on {self.device}"),
            ("latents", str(list(self.latent_shape))),
            ("psnr", f"{decibels(like.psnr_db)} (worst frame {decibels(like.worst_frame_db)})"),
            ("tiling", f"{self.tiling}; {self._difference()}"),
            ("peak memory", f"{gibibytes(self.peak_bytes)} ({self.peak_kind})"),
            (
                "time",
                f"{self.seconds:.1f} s (encode {self.encode_seconds:.1f},"
                f" decode {self.decode_seconds:.1f})",
            ),
            *(("note", note) for note in self.notes),
        ]

    def _difference(self) -> str:
        if self.latents_apart is None or self.pixels_apart is None:
            return "not compared with untiled"
        return (
            f"largest difference from untiled {self.max_difference:.1e} of the range"
            f" (latents {self.latents_apart.largest:.1e}, pixels {self.pixels_apart.largest:.1e})"
        )

    def text(self) -> str:
        """The figures, one a line."""
        return "".join(f"{name:<12} {value}\n" for name, value in self.lines())


def decibels(value: float | None) -> str:
    """A PSNR for readers; None means no difference at all."""
    return "identical" if value is None else f"{value:.2f} dB"


def gibibytes(count: int | None) -> str:
    """A number of bytes for readers."""
    return "unknown" if count is None else f"{count / 2**30:.2f} GiB"
