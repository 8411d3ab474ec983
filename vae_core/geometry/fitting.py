"""What is done to a clip whose size the network cannot take, and how is the caller told?

1. The aligned layout takes the counts of sample frames that the network's `Ratios` allow, 4(n-1)+1
   for most, and every layout heights and widths that are multiples of its pixels.
2. Other sizes are padded by replication at the end, bottom and right, cropped there, or refused, by
   named policy.
3. `Fitted` keeps both sizes and says in words what was done; decoding trims padding off again.

Pure geometry; `streaming.fitted_frames` does it to frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ..errors import InputError
from ..settings import Fit, Layout, Settings
from .ratios import Ratios
from .region import Extent, Interval


@dataclass(frozen=True, slots=True)
class Fitted:
    """A clip's own size and the size that the network is given.

    source, network: in (sample frames, height, width).
    notes: what was done, one sentence each; empty when nothing was.
    """

    source: Extent
    network: Extent
    notes: tuple[str, ...]

    def crop(self, h: Interval, w: Interval) -> tuple[Interval, Interval, Fitted]:
        """The rows and columns of the clip from which rows h and columns w of the network's picture
        are made, and how. Padding is less than a latent element, so that a crop that starts on one
        holds something.
        """
        h_in, w_in = h.clip(self.source.h), w.clip(self.source.w)
        source = Extent(self.source.t, h_in.size, w_in.size)
        return h_in, w_in, Fitted(source, Extent(self.network.t, h.size, w.size), ())


def _fit(size: int, below: int, above: int, fit: Fit, rule: str) -> int:
    """`size` if it obeys the rule, else the nearest legal size that the policy allows."""
    if below == above or size == below:
        return size
    if fit is Fit.ERROR or (fit is Fit.CROP and below < 1):
        fewer = f", or {below} to lose some" if below >= 1 else ""
        raise InputError(
            f"{rule}; got {size}. Use {above}{fewer}, or let size and frames be padded."
        )
    return below if fit is Fit.CROP else above


def _side(name: str, size: int, px: int, fit: Fit) -> int:
    below, above = size // px * px, -(-size // px) * px
    return _fit(size, below, above, fit, f"the {name} must be a multiple of {px} pixels")


def _frames(count: int, ratios: Ratios, settings: Settings) -> int:
    if settings.layout is Layout.DIFFUSERS:
        return count
    above = ratios.sample_frames(ratios.latent_frames(count))
    below = count if above == count else above - ratios.frames
    return _fit(
        count,
        below,
        above,
        cast("Fit", settings.frame_fit),
        f"the number of sample frames must be {ratios.frames}k+1",
    )


def _note(what: str, before: int, after: int) -> str | None:
    if before == after:
        return None
    done = "padded by replication" if after > before else "cropped"
    return f"{what} {done} from {before} to {after}."


def fit(source: Extent, settings: Settings, ratios: Ratios) -> Fitted:
    """How a clip of `source` (sample frames, height, width) is brought to a size that the network
    takes.

    Raises `InputError` where the policy is to refuse, with the nearest sizes that would do.
    """
    size_fit = cast("Fit", settings.size_fit)
    network = Extent(
        _frames(source.t, ratios, settings),
        _side("height", source.h, ratios.px, size_fit),
        _side("width", source.w, ratios.px, size_fit),
    )
    notes = (
        _note("Frames", source.t, network.t),
        _note("Height", source.h, network.h),
        _note("Width", source.w, network.w),
    )
    return Fitted(source, network, tuple(note for note in notes if note))
