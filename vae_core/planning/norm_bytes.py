"""How many bytes does a tile's norm take beside what it reads and writes?

What each voxel has, or the maps of a modulated norm: at latent resolution, and with their
columns gathered. See `kernels` for what makes them.
"""

from __future__ import annotations

from ..geometry.grid import cells_of
from ..geometry.region import Region
from ..program.parts import Form, Norm
from .classes import mapped
from .site import Site


def latent_bytes(site: Site, norm: Norm, where: Region) -> int:
    """Bytes of the latents that modulate the elements `where` of src."""
    if not norm.modulated:
        return 0
    cells, columns = _latent_cells(site, where)
    sizes = site.sizes
    return sizes.batch * site.ends.channels * cells * columns * sizes.element_bytes


def norm_bytes(site: Site, norm: Norm, where: Region) -> int:
    """Bytes of what is made of a norm for the elements `where` of src."""
    sizes = site.sizes
    if norm.per_voxel:
        numbers = where.voxels * (1 + (norm.form is Form.LAYER))
        return sizes.batch * numbers * sizes.statistics_bytes
    if not norm.modulated:
        return 0
    cells, columns = _latent_cells(site, where)
    narrow = sizes.batch * norm.channels * cells * columns
    wide = sizes.batch * norm.channels * cells * where.w.size
    made = 2 * narrow * (sizes.element_bytes + 2 * sizes.statistics_bytes)
    kind, both = mapped(site.ends.channels, norm), 2 * narrow * sizes.element_bytes
    made += sizes.workspaces.bytes(kind, latent_bytes(site, norm, where), both)
    return made + 2 * wide * sizes.statistics_bytes


def _latent_cells(site: Site, where: Region) -> tuple[int, int]:
    """The most latent cells that the elements `where` of src show: in time times height, and in
    width.
    """
    ends, here, all_of = site.ends, site.here, site.latents
    px, first = ends.px // here.px, site.chunk.keeps_first(site.src.t)
    rows = min(most_cells(where.h.size, px), all_of.h)
    columns = min(most_cells(where.w.size, px), all_of.w)
    return rows * cells_of(where.t, ends.frames // here.frames, first).size, columns


def most_cells(size: int, ratio: int) -> int:
    """The most cells that `size` elements can touch, wherever they lie."""
    return (size + ratio - 2) // ratio + 1
