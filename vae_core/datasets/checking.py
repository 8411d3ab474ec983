"""Is a folder of encoded clips what its index says?

1. Every line of the index has a file, every file a line, and no clip comes twice.
2. A file's metadata agree with the line; its tensor has the shape that the bucket gives, and is
   finite.
3. On request the latents are decoded and compared with the clip that they were made from.

It changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import VaeCoreError
from ..geometry.grid import latent_frames
from ..settings import SPATIAL_RATIO
from .shards import Entry, Shards


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one clip: complaints, one sentence each; none where all is well."""

    name: str
    entry: Entry | None
    complaints: tuple[str, ...]


def _expected(entry: Entry, channels: int) -> tuple[int, ...]:
    c = 2 * channels if entry.kind == "moments" else channels
    h, w = entry.height_px // SPATIAL_RATIO, entry.width_px // SPATIAL_RATIO
    return c, latent_frames(entry.frames), h, w


def _complaints(shards: Shards, entry: Entry, line: dict[str, Any], channels: int) -> Iterator[str]:
    said = {"file": entry.file} | asdict(entry) | {"shape": list(entry.shape)}
    said["caption"] = line.get("caption")  # the lists alone have it
    other = sorted(key for key in said | line if said.get(key) != line.get(key))
    if other:
        yield f"index and file disagree in {', '.join(other)}"
    try:
        tensor = shards.tensor(entry)
    except VaeCoreError as error:
        yield str(error)
        return
    expected = _expected(entry, channels)
    if tuple(tensor.shape) != entry.shape or entry.shape != expected:
        yield f"its tensor is {list(tensor.shape)}, its bucket makes {list(expected)}"
    if not bool(torch.isfinite(tensor).all()):
        yield "its tensor holds NaN or infinity"


def check(shards: Shards, channels: int) -> Iterator[Finding]:
    """What there is to say of every clip, in the order of the index; then of files without a line.

    channels: of the latents. Raises `VideoError` where there is no index.
    """
    lines = shards.index()
    names = Counter(str(line.get("name")) for line in lines)
    sources = Counter(line.get("source") for line in lines)
    for line in lines:
        name = str(line.get("name"))
        entry = shards.entry(name)
        if entry is None:
            yield Finding(name, None, ("its file is missing or not whole",))
            continue
        complaints = list(_complaints(shards, entry, line, channels))
        if names[name] > 1 or sources[line.get("source")] > 1:
            complaints.append("it is in the index more than once")
        yield Finding(name, entry, tuple(complaints))
    for name in shards.names():
        if name not in names:
            yield Finding(name, None, ("it has a file, but no line in the index",))
