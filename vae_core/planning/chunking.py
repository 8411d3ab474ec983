"""Into which chunks may a clip be cut, and which settings mean something for a network?"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import lcm
from typing import cast

from ..errors import InputError
from ..geometry.grid import Chunk, decode_chunks, encode_chunks
from ..program.bands import bands_of
from ..program.parts import Edge
from ..program.scopes import needs_clip
from ..program.shares import shares_of
from ..program.steps import SOURCE, Program
from ..settings import CHUNK_STEP_FRAMES, Layout, NormScope, Settings, Tiling
from .plan import Job


def chunks_of(job: Job, settings: Settings) -> tuple[Chunk, ...]:
    """The chunks of the clip; one alone where statistics or columns of keys run over all of it, and
    bands where its network looks ahead. Where several ranks share the work, the largest share is
    that of all.
    """
    chunks, ranks = _chunks(job, settings), settings.ranks
    if ranks == 1:
        return chunks
    share = shares_of(job.program, job.source.h, ranks).largest()
    return tuple(replace(chunk, share=share) for chunk in chunks)


def _chunks(job: Job, settings: Settings) -> tuple[Chunk, ...]:
    program, frames, length = job.program, job.source.t, settings.chunk_frames
    if not program.looks_ahead and takes_whole(program, settings):
        length = program.ratios.frames * frames
    return _cut(program, frames, length, cast("Layout", settings.layout))


@lru_cache(maxsize=16)
def _cut(program: Program, frames: int, length: int, layout: Layout) -> tuple[Chunk, ...]:
    """Chunks of `length` sample frames each, for all who ask for the same."""
    if program.looks_ahead:
        return bands_of(program, frames, max(length // program.stores[SOURCE].frames, 1))
    cut = encode_chunks if program.encodes else decode_chunks
    found = cut(frames, length, layout, program.ratios)
    return tuple(replace(one, leads=True) for one in found) if program.leads else found


def takes_whole(program: Program, settings: Settings) -> bool:
    """Whether a clip is one chunk, however long it is."""
    return settings.norm_scope is NormScope.CLIP or program.whole


def meant(program: Program, settings: Settings) -> Settings:
    """`settings` as far as they mean something for a program, and otherwise the usual ones.

    Where no statistics are gathered there is no scope of them, and no layout of frames but one; nor
    is there a choice where the network's own are of the whole clip.
    """
    if needs_clip(program):
        return replace(settings, norm_scope=NormScope.CLIP, layout=Layout.ALIGNED)
    if program.has_statistics:
        return settings
    return replace(settings, norm_scope=NormScope.CHUNK, layout=Layout.ALIGNED)


def check_mirrors(job: Job) -> None:
    """`InputError` for a picture that is too small to be mirrored at its edges."""
    mirrored = any(step.mix.edge is Edge.REFLECT for step in job.program.steps)
    if mirrored and min(job.source.h, job.source.w) < _MIRRORED:
        raise InputError(
            f"this VAE mirrors pictures at their edges, and needs at least {_MIRRORED} elements in"
            f" height and width for that; got {job.source.h}x{job.source.w}. Use a larger picture."
        )


_MIRRORED = 2
"""Elements along a side of which one is left when the outermost is left out."""


def chunk_lengths(job: Job, settings: Settings) -> tuple[int, ...]:
    """The lengths of chunks to choose from: the one asked for, and where no statistics depend on
    it, its halves down to one latent frame, in steps that settings can say.
    """
    least = lcm(job.program.ratios.frames, CHUNK_STEP_FRAMES)
    longest = max(settings.chunk_frames // least * least, least)
    lengths = [longest]
    free = not job.program.has_statistics and settings.tiling is not Tiling.BLEND
    while free and lengths[-1] >= 2 * least:
        lengths.append(lengths[-1] // 2 // least * least)
    return tuple(lengths)
