"""Is a folder of encoded clips what its index says?

1. Every line of the index is one of ours and has a file, every file a line, and no clip comes
   twice.
2. A file's metadata agree with the line; its tensor has the shape that the bucket gives, and is
   finite.
3. On request the latents are decoded and compared with the clip that they were made from.

It changes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import VaeCoreError
from ..geometry.ratios import Ratios
from .shards import Entry, Shards


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one clip: complaints, one sentence each; none where all is well."""

    name: str
    entry: Entry | None
    complaints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Latents:
    """What the latents of a folder are like: channels, and what an element stands for."""

    channels: int
    ratios: Ratios

    @classmethod
    def of(cls, shards: Shards) -> _Latents:
        """Channels are those of the first file that has any."""
        entries = (shards.entry(name) for name in shards.names())
        first = next((one for one in entries if one is not None and one.shape), None)
        if first is None:
            return cls(0, shards.ratios())
        return cls(first.shape[0] // (1 + (first.kind == "moments")), shards.ratios())

    def shape(self, entry: Entry) -> tuple[int, ...]:
        """What a clip's tensor has to be."""
        c = self.channels * (1 + (entry.kind == "moments"))
        h, w = entry.height_px // self.ratios.px, entry.width_px // self.ratios.px
        return c, self.ratios.latent_frames(entry.frames), h, w


def _complaints(
    shards: Shards, entry: Entry, line: dict[str, Any], latents: _Latents
) -> Iterator[str]:
    said = shards.line_of(entry)
    said["caption"] = line.get("caption")  # the lists alone have it
    unsaid: dict[str, Any] = {"content": "", "notes": []}  # in lines of old
    line = unsaid | line
    other = sorted(key for key in said | line if said.get(key) != line.get(key))
    if other:
        yield f"index and file disagree in {', '.join(other)}"
    try:
        tensor = shards.tensor(entry)
    except VaeCoreError as error:
        yield str(error)
        return
    expected = latents.shape(entry)
    if tuple(tensor.shape) != entry.shape or entry.shape != expected:
        yield f"its tensor is {list(tensor.shape)}, its bucket makes {list(expected)}"
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
        yield "its tensor holds NaN or infinity"


def _named(line: dict[str, Any] | None, number: int) -> str:
    """What a line calls its clip, printable; else which line it is."""
    name = None if line is None else line.get("name")
    return name if isinstance(name, str) and name.isprintable() else f"line {number}"


def check(shards: Shards) -> Iterator[Finding]:
    """What there is to say of every clip, in the order of the index; then of files without a line.

    Raises `VideoError` where there is no index, or the recipe is damaged.
    """
    lines, latents = shards.index(), _Latents.of(shards)
    names = Counter(_named(line, number) for number, line in enumerate(lines, 1))
    sources = Counter(json.dumps(line.get("source")) for line in lines if line is not None)
    for number, line in enumerate(lines, 1):
        name = _named(line, number)
        if line is None:
            yield Finding(name, None, ("it is no JSON object, so it is nothing of ours",))
            continue
        entry = shards.entry(name)
        if entry is None:
            yield Finding(name, None, ("its file is missing or not whole",))
            continue
        complaints = list(_complaints(shards, entry, line, latents))
        if names[name] > 1 or sources[json.dumps(line.get("source"))] > 1:
            complaints.append("it is in the index more than once")
        yield Finding(name, entry, tuple(complaints))
    for name in shards.names():
        if name not in names:
            yield Finding(name, None, ("it has a file, but no line in the index",))
