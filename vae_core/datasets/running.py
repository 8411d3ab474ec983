"""How is a whole folder encoded, so that it can be killed at any moment and goes on where it was?

1. Clips that have a file are done, if that file says that it was made from a clip of that path and
   content (see `content.py`); the others are to do.
2. Workers turn clips into files: one process that reads the next clip while this one is computed,
   or Ray's (`ray_workers.py`). Which worker does what, and in which order, changes nothing.
3. Now and then, and in the end, the lists are made anew from the files that are there.

A lock keeps two runs out of one folder. Where the disk is full the run ends; what is done stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from ..errors import VideoError
from ..media.pipeline import read_ahead
from .clips import SourceClip
from .content import is_same, load_stamps, save_stamps
from .encoding import Encoding, prepare
from .shards import Entry, Shards, Skipped

_LISTS_EVERY_SECONDS = 60.0
_LOCK = ".lock"

Outcome = Entry | Skipped
Workers = Callable[[Sequence[SourceClip]], Iterator[Outcome]]


@dataclass(slots=True)
class Summary:
    """What a run has done: entries by name, of this run and earlier ones; what was skipped.

    encoded: clips of this run. frames: their sample frames. seconds: how long it took.
    """

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    skipped: list[Skipped] = field(default_factory=list[Skipped])
    encoded: int = 0
    frames: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one more clip."""
        if isinstance(outcome, Skipped):
            self.skipped.append(outcome)
            return
        self.entries[outcome.name] = outcome
        self.encoded += 1
        self.frames += outcome.frames


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Keep other runs out of `folder`; the system lets go when the process ends, however it ends.

    Raises `VideoError` where another run is at work, or nothing can be written. Where the system
    has no such locks, nothing is kept out.
    """
    try:
        lock = (folder / _LOCK).open("w")
    except OSError as error:
        raise VideoError(f"cannot write to {folder}: {error.strerror}.") from error
    with lock as file:
        if not _take(file):
            raise VideoError(f"another run is at work in {folder}; wait for it, or end it first.")
        yield


def _take(file: IO[Any]) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def finished(shards: Shards, clips: Sequence[SourceClip]) -> dict[str, Entry]:
    """The clips that need not be encoded again, with today's captions."""
    found: dict[str, Entry] = {}
    there, stamps = set(shards.names()), load_stamps(shards.folder)
    for clip in clips:
        entry = shards.entry(clip.name) if clip.name in there else None
        if entry and _is_of(entry, clip, shards, stamps.get(clip.source)):
            found[clip.name] = replace(entry, caption=clip.caption)
    return found


def _is_of(entry: Entry, clip: SourceClip, shards: Shards, known: tuple[str, str] | None) -> bool:
    """Whether an entry was made from the clip as it is now."""
    if (entry.name, entry.source, entry.size_bytes) != (clip.name, clip.source, clip.size_bytes):
        return False
    if not entry.content:  # a file of old, which does not say: then the newer one is right
        return clip.stamp.changed_ns <= shards.written_ns(entry.name)
    return is_same(clip.path, clip.stamp, known, entry.content)


def _note_stamps(shards: Shards, clips: Sequence[SourceClip], entries: dict[str, Entry]) -> None:
    """Leave a hint for the next run, see `content.py`."""
    done = ((clip, entries[clip.name]) for clip in clips if clip.name in entries)
    save_stamps(shards.folder, {clip.source: (clip.stamp.text, one.content) for clip, one in done})


def one_process(encoding: Encoding, clips: Sequence[SourceClip]) -> Iterator[Outcome]:
    """Every clip in turn, the next one read meanwhile."""
    ready = map(partial(prepare, recipe=encoding.recipe), clips)
    with read_ahead(ready, depth=1) as prepared:
        for one in prepared:
            yield one if isinstance(one, Skipped) else encoding.finish(one)


def run(
    shards: Shards,
    clips: Sequence[SourceClip],
    workers: Workers,
    tell: Callable[[Summary], object],
    problems: Sequence[Skipped] = (),
) -> Summary:
    """Encode what is not there yet; `tell` hears of the state after every clip, and at first.

    problems: what was skipped before.

    Raises `VideoError` where nothing can be written. Files of clips that are gone stay, but are in
    no list.
    """
    summary = Summary(finished(shards, clips), list(problems))
    to_do = [clip for clip in clips if clip.name not in summary.entries]
    start = listed = time.monotonic()
    tell(summary)
    try:
        for outcome in workers(to_do):
            summary.add(outcome)
            summary.seconds = time.monotonic() - start
            tell(summary)
            if time.monotonic() - listed > _LISTS_EVERY_SECONDS:
                shards.write_lists(summary.entries.values(), summary.skipped)
                listed = time.monotonic()
    finally:
        shards.clear()
        shards.write_lists(summary.entries.values(), summary.skipped)
        _note_stamps(shards, clips, summary.entries)
    return summary
