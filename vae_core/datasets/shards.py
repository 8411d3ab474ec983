"""How does a folder of results lie on disk, and what can be said of it without opening a clip?

    video_latents/NAME.safetensors   one clip: `moments` [2c, n, h/r, w/r] (means, then logarithms
                                     of variances) or `latents` [c, n, h/r, w/r]; unscaled
    videos.txt                       one line a clip: video_latents/NAME.safetensors
    prompts.txt                      the caption on the same line; only where every clip has one
    index.jsonl                      the same and more, a JSON object a line: see `Entry`
    skipped.jsonl                    clips that could not be used, and why
    dataset.json                     the recipe: all that the numbers depend on

Trainers read other files than these; what is written for one of them is in `trainers.py`.

1. A clip's file appears whole and is on the disk when it does; nothing else says that it is done.
2. The lists are made anew from these files, never added to, and in the order of the source paths.
3. What is read is believed in nothing: a file or a line that is not as we write it is as good as
   none, and is said to be so.

So a run may be killed at any moment, and the next one finds out what is left to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..errors import SettingsError, VideoError
from ..geometry.ratios import Ratios
from ..media.files import clear_parts, whole_file
from .tensor_files import Safetensors, TensorFiles

LATENTS = "video_latents"
RECIPE = "dataset.json"
INDEX = "index.jsonl"
SKIPPED = "skipped.jsonl"
VIDEOS = "videos.txt"
PROMPTS = "prompts.txt"
SAFETENSORS: TensorFiles = Safetensors()

KINDS = ("moments", "latents")
FORMAT = "exact-video-vae dataset 1"
_FORMERLY = {"exact-video-vae dataset 1, laid out as cogvideox-factory's": FORMAT}
"""What folders of old call their format."""

_UNSAID = {
    "family": "cogvideox",
    "ratios": {"px": 8, "frames": 4},
    "latent_statistics": None,
}
"""What folders of old do not say, since there was nothing else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one clip.

    name: of its file. source: of the clip, relative to the folder. size_bytes: of the clip's file.
    frames, height_px, width_px: its bucket. fps: sample frames a second.
    kind: moments or latents. shape: of that tensor. caption: may be empty; it is in the lists only,
        so that it may change. content: a digest of the clip's bytes; empty in files of old.
    notes: what is not in the latents as a player would show it.
    """

    name: str
    source: str
    size_bytes: int
    frames: int
    height_px: int
    width_px: int
    fps: str
    kind: str
    shape: tuple[int, ...]
    caption: str = ""
    content: str = ""
    notes: tuple[str, ...] = ()

    def as_line(self) -> dict[str, Any]:
        """What the index says, but for the file."""
        return asdict(self) | {"shape": list(self.shape), "notes": list(self.notes)}

    def as_strings(self) -> dict[str, str]:
        """What the clip's file says."""
        line = self.as_line()
        del line["caption"]
        return {
            name: _plain(value) if isinstance(value, str) else json.dumps(value)
            for name, value in line.items()
        }


def _plain(text: str) -> str:
    """`text` as a file's metadata can hold it: as it is, or in JSON where it is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is no UTF-8
        return json.dumps(text)
    return json.dumps(text) if text.startswith('"') else text


def _text(said: str) -> str:
    """`_plain` undone."""
    try:
        text: Any = json.loads(said) if said.startswith('"') else said
    except ValueError:  # a path that begins with a quotation mark, in a file of old
        text = said
    return text if isinstance(text, str) else said


def _whole(said: str) -> int:
    value: Any = json.loads(said)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(said)
    return value


def _list_of(kind: type) -> Callable[[str], tuple[Any, ...]]:
    def read(said: str) -> tuple[Any, ...]:
        found: Any = json.loads(said)
        values = cast("list[Any]", found) if isinstance(found, list) else [None]
        if not all(type(one) is kind for one in values):
            raise ValueError(said)
        return tuple(values)

    return read


_READERS: dict[str, Callable[[str], Any]] = {
    "str": _text,
    "int": _whole,
    "tuple[int, ...]": _list_of(int),
    "tuple[str, ...]": _list_of(str),
}
_OPTIONAL = {"content", "notes"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")


def entry_of(said: Mapping[str, str]) -> Entry | None:
    """What a file says of its clip; None where it does not say what we write."""
    kinds = {one.name: str(one.type) for one in fields(Entry) if one.name != "caption"}
    known = {key: kind for key, kind in kinds.items() if key in said or key not in _OPTIONAL}
    try:
        values: dict[str, Any] = {key: _READERS[kind](said[key]) for key, kind in known.items()}
    except (KeyError, ValueError, RecursionError):
        return None
    return Entry(**values) if values["kind"] in KINDS else None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A clip that could not be used, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shards:
    """A folder of results. files: what kind of file each clip's tensor lies in."""

    folder: Path
    files: TensorFiles = SAFETENSORS

    def check(self, recipe: dict[str, Any]) -> None:
        """See that the folder is new, or was made by the same recipe; nothing is changed.

        Raises `SettingsError` where it holds something else.
        """
        if (self.folder / RECIPE).is_file():
            self._check_recipe(self.recipe(), recipe)
        elif self.folder.is_dir() and any(self._foreign()):
            raise SettingsError(
                f"{self.folder} holds other files and no {RECIPE}; name an empty or a new folder."
            )

    def create(self) -> None:
        """Make the folder. Raises `VideoError` where that cannot be."""
        try:
            (self.folder / LATENTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise VideoError(f"cannot create {self.folder}: {error.strerror}.") from error

    def prepare(self, recipe: dict[str, Any]) -> None:
        """Note the recipe, and clear what was left half-written."""
        self.clear()
        if not (self.folder / RECIPE).is_file():
            _write(self.folder / RECIPE, json.dumps(recipe, indent=2, sort_keys=True) + "\n")

    def _foreign(self) -> Iterable[Path]:
        return (one for one in self.folder.iterdir() if one.name[0] != "." and one.name != LATENTS)

    def _check_recipe(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        wanted = json.loads(json.dumps(wanted))
        found = (
            _UNSAID
            | found
            | {"format": _FORMERLY.get(str(found.get("format")), found.get("format"))}
        )
        other = sorted(key for key in found | wanted if found.get(key) != wanted.get(key))
        if other:
            said = ", ".join(f"{key} {found.get(key)!r}, now {wanted.get(key)!r}" for key in other)
            raise SettingsError(
                f"{self.folder} was made with other settings: {said}. Use those, or another folder."
            )

    def clear(self) -> None:
        """Delete what killed processes left half-written."""
        clear_parts(self.folder)
        clear_parts(self.folder / LATENTS)

    def recipe(self) -> dict[str, Any]:
        """What `prepare` was given. Raises `VideoError` where there is none."""
        path = self.folder / RECIPE
        try:
            said: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise VideoError(_no_recipe(self.folder, "cannot be read")) from error
        if not isinstance(said, dict):
            raise VideoError(_no_recipe(self.folder, "is no JSON object"))
        return cast("dict[str, Any]", said)

    def ratios(self) -> Ratios:
        """What an element of the latents stands for. Raises `VideoError` where none is said."""
        said: Any = (_UNSAID | self.recipe())["ratios"]
        try:
            found = Ratios(int(said["px"]), int(said["frames"]))
        except (KeyError, TypeError, ValueError) as error:
            raise VideoError(_no_recipe(self.folder, "does not say the ratios")) from error
        if min(found.px, found.frames) < 1:
            raise VideoError(_no_recipe(self.folder, f"says ratios that cannot be: {said}"))
        return found

    def save(self, entry: Entry, tensor: Tensor) -> None:
        """Write one clip; its file appears when it is on the disk. Raises `VideoError`."""
        self.files.save(self._path(entry.name), entry.kind, tensor, entry.as_strings())

    def file_of(self, entry: Entry) -> str:
        """Where its tensor lies, relative to the results."""
        return f"{LATENTS}/{entry.name}{self.files.suffix}"

    def line_of(self, entry: Entry) -> dict[str, Any]:
        """What the index says of a clip."""
        return {"file": self.file_of(entry)} | entry.as_line()

    def entry(self, name: str) -> Entry | None:
        """What the file of a clip says; None where there is no whole one, or no such name."""
        said = self.files.said(self._path(name)) if _NAME.fullmatch(name) else None
        return None if said is None else entry_of(said)

    def written_ns(self, name: str) -> int:
        """When the file of a clip was written; 0 where there is none."""
        try:
            return self._path(name).stat().st_mtime_ns
        except OSError:
            return 0

    def tensor(self, entry: Entry) -> Tensor:
        """The tensor of one clip. Raises `VideoError` where it cannot be read."""
        return self.files.tensor(self._path(entry.name), entry.kind)

    def _path(self, name: str) -> Path:
        return self.folder / LATENTS / f"{name}{self.files.suffix}"

    def names(self) -> list[str]:
        """The clips that have a file."""
        found = (self.folder / LATENTS).glob(f"*{self.files.suffix}")
        return sorted(path.stem for path in found if path.name[0] != ".")

    def write_lists(self, entries: Iterable[Entry], skipped: Iterable[Skipped]) -> None:
        """Write index, lists and what was skipped, each whole or not at all."""
        entries = sorted(entries, key=lambda entry: entry.source)
        lines = [json.dumps(self.line_of(one)) for one in entries]
        _write_lines(self.folder / INDEX, lines)
        _write_lines(self.folder / VIDEOS, [self.file_of(entry) for entry in entries])
        reasons = sorted(skipped, key=lambda one: one.source)
        _write_lines(self.folder / SKIPPED, [json.dumps(asdict(one)) for one in reasons])
        if entries and all(entry.caption for entry in entries):
            _write_lines(self.folder / PROMPTS, [entry.caption for entry in entries])
        else:
            (self.folder / PROMPTS).unlink(missing_ok=True)

    def index(self) -> list[dict[str, Any] | None]:
        """The lines of the index; None for one that is no JSON object.

        Raises `VideoError` where there is none to be read.
        """
        path = self.folder / INDEX
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise VideoError(f"{path} cannot be read: {error.strerror}.") from error
        return [_object(line) for line in lines]


def _no_recipe(folder: Path, why: str) -> str:
    return (
        f"{folder} is no folder of encoded clips: its {RECIPE} {why}. If it is one, and only that"
        f" file is damaged, put its {RECIPE} back from a copy; else name another folder."
    )


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        said: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", said) if isinstance(said, dict) else None


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    _write(path, "".join(f"{line}\n" for line in lines))
