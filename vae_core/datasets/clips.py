"""Which clips does a folder hold, and what are they called?

1. Every file below the folder with a video's suffix is a clip, and every animated picture; and
   every folder of pictures that holds none of these. The folder of results is left out.
2. A clip's name is its path in plain letters and a few digits that no other path has, so that it
   stays the same whatever is added beside it.
3. Nothing is left out in silence: what cannot be looked at is a `Skipped`, and files of other kinds
   are counted in a remark.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import VideoError
from ..media.pictures import PICTURE_SUFFIXES
from .captions import Captions, captions_in
from .content import Stamp, bytes_of, stamp_of
from .shards import Skipped
from .walking import Folder, Walk, walk

VIDEO_SUFFIXES = frozenset(
    {
        ".264", ".265", ".266", ".3g2", ".3gp", ".amv", ".apng", ".asf", ".avi", ".avif", ".bik",
        ".divx", ".dv", ".dvr-ms", ".f4v", ".flc", ".fli", ".flv", ".gif", ".gxf", ".h261", ".h263",
        ".h264", ".h265", ".h266", ".hevc", ".ismv", ".ivf", ".m1v", ".m2p", ".m2t", ".m2ts",
        ".m2v", ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".mov", ".mp4", ".mpe",
        ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nsv", ".nut", ".obu", ".ogg", ".ogm", ".ogv",
        ".qt", ".rm", ".rmvb", ".smk", ".tod", ".trp", ".ts", ".vc1", ".vob", ".webm", ".wmv",
        ".wtv", ".y4m",
    }
)  # fmt: skip
"""What FFmpeg's demuxers call files that hold pictures in motion."""

_NAME_LETTERS = 80
_NAME_DIGITS = (8, 16, 64)
_HEAD_BYTES = 65536


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip that is to be encoded.

    path: where it lies. source: the same, relative to the folder, with forward slashes.
    name: what its latents are called. caption: what is said of it, in one line; may be empty.
    stamp: by which a change is noticed without reading it.
    """

    path: Path
    source: str
    name: str
    caption: str
    stamp: Stamp

    @property
    def size_bytes(self) -> int:
        """Of its file, or of all its pictures."""
        return self.stamp.size_bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder: clips, sorted by source; what cannot be one, and why; remarks."""

    clips: tuple[SourceClip, ...]
    problems: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()


def name_of(source: str, digits: int = _NAME_DIGITS[0]) -> str:
    """The name of the clip at that relative path, with so many digits of its own."""
    stem = source.rpartition(".")[0] or source
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-_NAME_LETTERS:]
    digest = hashlib.sha256(bytes_of(source)).hexdigest()
    return f"{plain}-{digest[:digits]}"


def _is_animated(path: Path) -> bool:
    """Whether a PNG or WebP file says at its start that it is in motion."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:  # said of it when it is opened as a clip
        return False
    if head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2) if len(head) > 20 else False
    at = head.find(b"acTL", 0, max(head.find(b"IDAT"), 0))
    return head[:4] == b"\x89PNG" and at > 0 and int.from_bytes(head[at + 4 : at + 8], "big") > 1


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The files of a folder: clips by themselves, pictures that stand still, and all others."""

    clips: tuple[Path, ...]
    pictures: tuple[Path, ...]
    others: tuple[Path, ...]


def _sorted(folder: Folder) -> _Sorted:
    by_kind: tuple[list[Path], list[Path], list[Path]] = ([], [], [])
    for path in (folder.path / name for name in folder.files):
        suffix = path.suffix.lower()
        still = suffix in PICTURE_SUFFIXES and not (
            suffix in {".png", ".webp"} and _is_animated(path)
        )
        video = suffix in VIDEO_SUFFIXES or (suffix in PICTURE_SUFFIXES and not still)
        by_kind[0 if video else 1 if still else 2].append(path)
    return _Sorted(*(tuple(paths) for paths in by_kind))


def _paths(found: Walk) -> tuple[list[tuple[Path, tuple[Path, ...]]], list[Path]]:
    """Every clip with the pictures that it is made of, and the files that are no part of one."""
    clips: list[tuple[Path, tuple[Path, ...]]] = []
    left: list[Path] = []
    for folder in found.folders:
        files = _sorted(folder)
        is_clip = bool(files.pictures) and not files.clips and folder.path != found.top
        clips += [(path, ()) for path in files.clips]
        clips += [(folder.path, files.pictures)] if is_clip else []
        left += files.others if is_clip else files.pictures + files.others
    return clips, left


def _named(clips: Iterable[SourceClip]) -> Iterator[SourceClip]:
    """The same clips; where two share a name, the later one with more digits."""
    names: set[str] = set()
    for clip in clips:
        tries = (name_of(clip.source, digits) for digits in _NAME_DIGITS)
        name = next(name for name in tries if name not in names)
        names.add(name)
        yield replace(clip, name=name)


def _remarks(left: Iterable[Path], captions: Captions) -> Iterator[str]:
    yield from captions.unread
    kinds = Counter(
        path.suffix.lower() or "no suffix" for path in left if path not in captions.used
    )
    if kinds:
        said = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        yield f"files that are no clips by their suffix were left out: {said}."


def find_clips(folder: Path, results: Path) -> Found:
    """All that lies below `folder`. results: a folder that is left out.

    Raises `VideoError` where there is no clip, and for lists of captions that cannot be right.
    """
    if not folder.is_dir():
        raise VideoError(f"{folder} is no folder.")
    captions, found = captions_in(folder), walk(folder, results)
    paths, left = _paths(found)
    clips: list[SourceClip] = []
    for path, pictures in paths:
        source = found.source(path)
        caption = captions.of(path, source, is_folder=bool(pictures))
        try:
            stamp = stamp_of(pictures or (path,))
        except OSError as error:
            found.problems.append(Skipped(source, f"it cannot be looked at: {error.strerror}."))
            continue
        clips.append(SourceClip(path, source, "", caption, stamp))
    remarks = tuple(_remarks(left, captions))
    if not clips:
        raise VideoError(_nothing(folder, found.problems, remarks))
    ordered = sorted(clips, key=lambda clip: clip.source)
    return Found(tuple(_named(ordered)), tuple(found.problems), remarks)


def _nothing(folder: Path, problems: list[Skipped], remarks: tuple[str, ...]) -> str:
    said = [f"{one.source}: {one.reason}" for one in problems[:3]] + list(remarks)
    return (
        f"{folder} holds no clips: no file with a video's suffix, such as .mp4, and no folder of"
        f" pictures in it. {' '.join(said)}"
    ).strip()
