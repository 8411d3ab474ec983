"""How does a folder of results lie on disk, and what can be said of it without opening a clip?

The layout is cogvideox-factory's (finetrainers' ancestor; `training/prepare_dataset.py` and
`training/dataset.py` there), with safetensors in place of pickles:

    video_latents/NAME.safetensors   one clip: `moments` [2c, n, h/8, w/8] (means, then logarithms
                                     of variances) or `latents` [c, n, h/8, w/8]; unscaled
    videos.txt                       one line a clip: video_latents/NAME.safetensors
    prompts.txt                      the caption on the same line; only where every clip has one
    index.jsonl                      the same and more, a JSON object a line: see `Entry`
    skipped.jsonl                    clips that could not be used, and why
    dataset.json                     the recipe: all that the numbers depend on

1. A clip's file appears whole and is on the disk when it does; nothing else says that it is done.
2. The lists are made anew from these files, never added to, and in the order of the source paths.

So a run may be killed at any moment, and the next one finds out what is left to do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import SettingsError, VideoError
from ..media.files import clear_parts, whole_file
from ..media.latent_stream import safetensors_header

LATENTS = "video_latents"
RECIPE = "dataset.json"
INDEX = "index.jsonl"
SKIPPED = "skipped.jsonl"
VIDEOS = "videos.txt"
PROMPTS = "prompts.txt"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of one clip.

    name: of its file. source: of the clip, relative to the folder. size_bytes: of the clip's file.
    frames, height_px, width_px: its bucket. fps: sample frames a second.
    kind: moments or latents. shape: of that tensor. caption: may be empty; it is in the lists only,
        so that it may change.
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

    @property
    def file(self) -> str:
        """Where its tensor lies, relative to the results."""
        return f"{LATENTS}/{self.name}.safetensors"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A clip that could not be used, and why."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shards:
    """A folder of results."""

    folder: Path

    def check(self, recipe: dict[str, Any]) -> None:
        """See that the folder is new, or was made by the same recipe; nothing is changed.

        Raises `SettingsError` where it holds something else.
        """
        path = self.folder / RECIPE
        if path.is_file():
            self._check_recipe(json.loads(path.read_text(encoding="utf-8")), recipe)
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
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VideoError(
                f"{self.folder} is no folder of encoded clips: {RECIPE} cannot be read."
            ) from error

    def save(self, entry: Entry, tensor: Tensor) -> None:
        """Write one clip; its file appears when it is on the disk. Raises `VideoError`."""
        said = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in asdict(entry).items()
            if name != "caption"
        }
        stored = tensor.detach().to("cpu").contiguous()
        data = stored.view(torch.uint8).numpy().data
        with whole_file(self.folder / entry.file) as part, part.open("wb") as file:
            file.write(safetensors_header({entry.kind: tensor.shape}, said, tensor.dtype))
            file.write(data)

    def entry(self, name: str) -> Entry | None:
        """What the file of a clip says; None where there is no whole one."""
        try:
            with cast("Any", safe_open)(self._path(name), framework="pt") as file:
                said: dict[str, str] = file.metadata() or {}
        except (SafetensorError, OSError):
            return None
        kinds = {one.name: one.type for one in fields(Entry) if one.name != "caption"}
        try:
            values: dict[str, Any] = {
                key: said[key] if kind == "str" else json.loads(said[key])
                for key, kind in kinds.items()
            }
        except (KeyError, ValueError):
            return None
        values["shape"] = tuple(values["shape"])
        return Entry(**values)

    def tensor(self, entry: Entry) -> Tensor:
        """The tensor of one clip. Raises `VideoError` where it cannot be read."""
        try:
            with cast("Any", safe_open)(self._path(entry.name), framework="pt") as file:
                return file.get_tensor(entry.kind)
        except (SafetensorError, OSError) as error:
            raise VideoError(f"{self._path(entry.name)} cannot be read: {error}.") from error

    def _path(self, name: str) -> Path:
        return self.folder / LATENTS / f"{name}.safetensors"

    def names(self) -> list[str]:
        """The clips that have a file."""
        return sorted(path.stem for path in (self.folder / LATENTS).glob("*.safetensors"))

    def write_lists(self, entries: Iterable[Entry], skipped: Iterable[Skipped]) -> None:
        """Write index, lists and what was skipped, each whole or not at all."""
        entries = sorted(entries, key=lambda entry: entry.source)
        lines = [json.dumps({"file": one.file} | asdict(one)) for one in entries]
        _write_lines(self.folder / INDEX, lines)
        _write_lines(self.folder / VIDEOS, [entry.file for entry in entries])
        reasons = sorted(skipped, key=lambda one: one.source)
        _write_lines(self.folder / SKIPPED, [json.dumps(asdict(one)) for one in reasons])
        if entries and all(entry.caption for entry in entries):
            _write_lines(self.folder / PROMPTS, [entry.caption for entry in entries])
        else:
            (self.folder / PROMPTS).unlink(missing_ok=True)

    def index(self) -> list[dict[str, Any]]:
        """The lines of the index. Raises `VideoError` where it cannot be read."""
        path = self.folder / INDEX
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise VideoError(f"{path} cannot be read: {error}.") from error


def _write(path: Path, text: str) -> None:
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _write_lines(path: Path, lines: list[str]) -> None:
    _write(path, "".join(f"{line}\n" for line in lines))
