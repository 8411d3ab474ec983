"""What of a step decides how many bytes its tiles take?

Steps that differ in nothing but their names have the same site, and so share all arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..geometry.grid import Chunk
from ..geometry.region import Extent
from ..program.steps import SOURCE, Program, Step, StoreSpec
from .sizes import Sizes


@dataclass(frozen=True, slots=True)
class Site:
    """One step in one kind of chunk, without its name.

    step: as it is called where there are bands or shares, which know stores by their numbers.
    chunk: with no more than its kind. src, latents, dst: extents of what it reads, of what goes
        into the program, and of what it writes. here, ends: what the first two hold.
    added_channels, added: of the store that is added, and its extent; 0, and that of dst, without.
    reads_source, writes_sink: whether it touches the caller's own. measures: whether statistics are
        taken of anything.
    """

    step: Step
    sizes: Sizes = field(compare=False)
    chunk: Chunk
    src: Extent
    latents: Extent
    dst: Extent
    here: StoreSpec
    ends: StoreSpec
    added_channels: int
    added: Extent
    reads_source: bool
    writes_sink: bool
    measures: bool

    def __hash__(self) -> int:
        """Of extents, which are seldom the same where steps are not."""
        return hash((self.src, self.dst, self.added, self.here.channels, self.added_channels))

    @property
    def there(self) -> Extent:
        """The extent of what there is of src."""
        return self.chunk.held(self.step.src, self.src)


@lru_cache(maxsize=32)
def _nameless(program: Program) -> tuple[Step, ...]:
    """The steps of a program without what they are called and which stores they touch; one for all
    that are the same then.
    """
    known: dict[Step, Step] = {}
    steps = map(_without_names, program.steps)
    return tuple(known.setdefault(step, step) for step in steps)


def _without_names(step: Step) -> Step:
    mix, norm, residual = replace(step.mix, path=""), step.norm, step.residual
    if norm:
        maps = {"scale_path": "", "shift_path": ""} if norm.modulated else {}
        norm = replace(norm, path="", **maps)
    if residual:
        shortcut = replace(residual.shortcut, path="") if residual.shortcut else None
        residual = replace(residual, store=0, shortcut=shortcut)
    return replace(step, src=0, dst=0, mix=mix, norm=norm, residual=residual)


def sites_of(
    program: Program, chunk: Chunk, extents: tuple[Extent, ...], sizes: Sizes
) -> Iterator[Site]:
    """The site of every step of a program in a chunk."""
    here, held, anywhere = program.stores, chunk.all_held(extents), chunk.anywhere
    sink, measures = program.sink, program.measures
    steps = program.steps if chunk.band or chunk.share else _nameless(program)
    for step, nameless in zip(program.steps, steps, strict=True):
        added = step.residual.store if step.residual else None
        yield Site(
            nameless,
            sizes,
            anywhere,
            extents[step.src],
            extents[SOURCE],
            held[step.dst],
            here[step.src],
            here[SOURCE],
            0 if added is None else here[added].channels,
            held[step.dst if added is None else added],
            step.src == SOURCE,
            step.dst == sink,
            measures,
        )
