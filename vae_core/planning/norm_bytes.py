"""How many bytes does a tile's norm take beside what it reads and writes?

What each voxel has, or the maps of a modulated norm: at latent resolution, and with their
columns gathered. See `kernels` for what makes them.
"""

from __future__ import annotations

from ..geometry.grid import cells_of
from ..geometry.region import Extent, Interval
from ..program.parts import Form, Norm
from .arrays import Whole, least, most
from .classes import mapped
from .site import Site


def latent_frames(site: Site, frames: Interval) -> int:
    """Frames of latents that these frames of src show."""
    ratio = site.ends.frames // site.here.frames
    return cells_of(frames, ratio, site.chunk.keeps_first(site.src.t)).size


def latent_bytes(site: Site, norm: Norm, where: Extent, frames: Whole) -> Whole:
    """Bytes of the latents that modulate so many elements of src; frames: those of the latents."""
    if not norm.modulated:
        return 0
    cells, columns = _latent_cells(site, where, frames)
    sizes = site.sizes
    return sizes.batch * site.ends.channels * cells * columns * sizes.element_bytes


def norm_bytes(site: Site, norm: Norm, where: Extent, frames: Whole) -> Whole:
    """Bytes of what is made of a norm for so many elements of src; frames: those of the latents."""
    sizes = site.sizes
    wide = _rounded_once_bytes(site, norm, where)
    if norm.per_voxel:
        numbers = where.voxels * (1 + (norm.form is Form.LAYER))
        return wide + sizes.batch * numbers * sizes.statistics_bytes
    if not norm.modulated:
        return wide
    cells, columns = _latent_cells(site, where, frames)
    narrow = sizes.batch * norm.channels * cells * columns
    wide = sizes.batch * norm.channels * cells * where.w
    made = 2 * narrow * (sizes.element_bytes + 2 * sizes.statistics_bytes)
    kind, both = mapped(site.ends.channels, norm), 2 * narrow * sizes.element_bytes
    made += sizes.workspaces.bytes(kind, latent_bytes(site, norm, where, frames), both)
    return made + 2 * wide * sizes.statistics_bytes


FULL_BYTES = 4
"""Of an element that has as many digits as statistics, or more."""


def rows_at_once(line: int, *, accelerated: bool) -> int:
    """How many rows of `line` elements are normalised in float32 at once."""
    return max(_AT_ONCE[accelerated] // line, 1)


_AT_ONCE = {False: 2**17, True: 2**22}
"""Elements: few enough for a processor's caches, and enough for an accelerator to be busy."""


def _rounded_once_bytes(site: Site, norm: Norm, where: Extent) -> Whole:
    """Bytes of the rows that are normalised in float32, where they are."""
    sizes = site.sizes
    if not site.step.rounds_once or sizes.element_bytes >= FULL_BYTES:
        return 0
    line = sizes.batch * norm.channels * where.t * where.w
    # no less than one row, and of all rows no more than there are
    elements = least(most(_AT_ONCE[sizes.accelerated], line), line * where.h)
    return elements * sizes.statistics_bytes


def _latent_cells(site: Site, where: Extent, frames: Whole) -> tuple[Whole, Whole]:
    """The most latent cells that so many elements show: in time times height, and in width."""
    px, all_of = site.ends.px // site.here.px, site.latents
    rows = least(most_cells(where.h, px), all_of.h)
    return rows * frames, least(most_cells(where.w, px), all_of.w)


def most_cells(size: Whole, ratio: int) -> Whole:
    """The most cells that `size` elements can touch, wherever they lie."""
    return (size + ratio - 2) // ratio + 1
