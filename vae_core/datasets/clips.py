"""Which clips does a folder hold, what are they called, and what is said of them?

1. Every video file below the folder is a clip, and every folder of pictures without a video.
   Hidden files and the folder of results are left out.
2. A clip's name is its path in plain letters and a few digits that no other path has, so that it
   stays the same whatever is added beside it.
3. Its caption is the text file of the same name beside it, else its line in `prompts.txt`, where
   the folder has one beside `videos.txt` (cogvideox-factory's and finetrainers' way).
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import VideoError
from ..media.pictures import PICTURE_SUFFIXES

VIDEO_SUFFIXES = frozenset(
    {
        ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv",
        ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
_NAME_LETTERS = 80


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip that is to be encoded.

    path: where it lies. source: the same, relative to the folder, with forward slashes.
    name: what its latents are called. size_bytes: of its file, or of all its pictures.
    caption: what is said of it, in one line; empty where nothing is.
    """

    path: Path
    source: str
    name: str
    size_bytes: int
    caption: str


def name_of(source: str) -> str:
    """The name of the clip at that relative path; no two paths share one."""
    stem = source.rpartition(".")[0] or source
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-_NAME_LETTERS:]
    return f"{plain}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _listed(folder: Path) -> dict[str, str]:
    """Captions by relative path, from `videos.txt` and `prompts.txt`, line by line."""
    videos, prompts = _lines(folder / "videos.txt"), _lines(folder / "prompts.txt")
    if len(videos) != len(prompts):
        raise VideoError(
            f"videos.txt and prompts.txt must have a line for each other; {folder} has"
            f" {len(videos)} and {len(prompts)}."
        )
    return {video.strip(): prompt for video, prompt in zip(videos, prompts, strict=True)}


def _caption(path: Path, source: str, listed: dict[str, str]) -> str:
    beside = path.with_suffix(".txt")
    text = " ".join(_lines(beside)) if beside.is_file() else listed.get(source, "")
    return " ".join(text.split())


def _size(path: Path) -> int:
    if path.is_dir():
        pictures = (one for one in path.iterdir() if one.suffix.lower() in PICTURE_SUFFIXES)
        return sum(one.stat().st_size for one in pictures)
    return path.stat().st_size


def _paths(folder: Path, results: Path) -> list[Path]:
    found: list[Path] = []
    for here, folders, files in os.walk(folder):
        at = Path(here)
        folders[:] = sorted(
            name for name in folders if name[0] != "." and (at / name).resolve() != results
        )
        suffixes = {name: Path(name).suffix.lower() for name in files if name[0] != "."}
        videos = [at / name for name, suffix in suffixes.items() if suffix in VIDEO_SUFFIXES]
        pictures = [name for name, suffix in suffixes.items() if suffix in PICTURE_SUFFIXES]
        found += videos or ([at] if pictures and at != folder else [])
    return found


def find_clips(folder: Path, results: Path) -> list[SourceClip]:
    """All clips below `folder`, sorted by path. results: a folder that is left out.

    Raises `VideoError` where there is none.
    """
    if not folder.is_dir():
        raise VideoError(f"{folder} is no folder.")
    listed, clips = _listed(folder), list[SourceClip]()
    for path in _paths(folder, results.resolve()):
        source = path.relative_to(folder).as_posix()
        caption = _caption(path, source, listed)
        clips.append(SourceClip(path, source, name_of(source), _size(path), caption))
    if not clips:
        raise VideoError(
            f"{folder} holds no clips ({', '.join(sorted(VIDEO_SUFFIXES))}, folders of pictures)."
        )
    return sorted(clips, key=lambda clip: clip.source)
