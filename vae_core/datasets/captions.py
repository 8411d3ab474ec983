"""What is said of a clip, and in which encoding is it written?

1. A clip's caption is the text file of the same name beside it: `a.txt` or `a.mp4.txt` for `a.mp4`,
   `shot.01.txt` for the folder of pictures `shot.01`.
2. Else it is the clip's line in `prompts.txt`, where the folder has one beside `videos.txt`
   (cogvideox-factory's and finetrainers' way).
3. Text is UTF-8, or UTF-16 or UTF-32 with or without a mark at its start. What is none of these is
   not guessed at: the clip has no caption then, and a note says why.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import VideoError

LISTS = ("videos.txt", "prompts.txt")
_MARKS = (  # that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def _encoding(data: bytes) -> str:
    """By the mark at the start, else by where zeros lie: text itself has none."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    first, second = 0 in data[::2], 0 in data[1::2]
    if first == second or len(data) % 2:
        return "utf-8"
    return "utf-16-be" if first else "utf-16-le"


def text_of(path: Path) -> str:
    """The text of a file, without a mark. Raises `VideoError` for what cannot be read as text."""
    try:
        data = path.read_bytes()
        text = data.decode(_encoding(data))
    except OSError as error:
        raise VideoError(f"{path.name} cannot be read: {error.strerror}.") from error
    except UnicodeError as error:
        raise VideoError(f"{path.name} is neither UTF-8 nor UTF-16; save it as UTF-8.") from error
    if "\0" in text:
        raise VideoError(f"{path.name} is no text: it holds zeros; save it as UTF-8.")
    return text


def _lines(path: Path) -> list[str]:
    """Lines as the trainers count them: ended by a line feed; empty ones at the end are none."""
    lines = text_of(path).replace("\r\n", "\n").split("\n") if is_file(path) else []
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def is_file(path: Path) -> bool:
    """Whether there is such a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:  # too long
        return False


def _listed(folder: Path) -> dict[str, str]:
    videos, prompts = (_lines(folder / name) for name in LISTS)
    if len(videos) != len(prompts):
        raise VideoError(
            f"videos.txt and prompts.txt must have a line for each other; {folder} has"
            f" {len(videos)} and {len(prompts)}."
        )
    plain = (PurePosixPath(video.replace("\\", "/")).as_posix() for video in videos)
    return dict(zip(plain, prompts, strict=True))


@dataclass(slots=True)
class Captions:
    """What a folder of clips says of them.

    listed: captions by relative path, from the lists. used: the text files that belong to a clip.
    unread: notes on text files that could not be read.
    """

    folder: Path
    listed: dict[str, str]
    used: set[Path] = field(default_factory=set[Path])
    unread: list[str] = field(default_factory=list[str])

    def of(self, path: Path, source: str, *, is_folder: bool) -> str:
        """What is said of the clip at `path`, in one line; empty where nothing is."""
        names = (path.name,) if is_folder else (path.stem, path.name)
        for beside in (path.with_name(f"{name}.txt") for name in names):
            if is_file(beside):
                self.used.add(beside)
                return " ".join(self._read(beside, source).split())
        return " ".join(self.listed.get(source, "").split())

    def _read(self, path: Path, source: str) -> str:
        try:
            return text_of(path)
        except VideoError as error:
            self.unread.append(f"{source} goes without its caption: {error}")
            return ""


def captions_in(folder: Path) -> Captions:
    """Raises `VideoError` for lists that are not each other's, or cannot be read."""
    lists = {folder / name for name in LISTS if is_file(folder / name)}
    return Captions(folder, _listed(folder), lists)
