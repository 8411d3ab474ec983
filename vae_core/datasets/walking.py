"""Which files lie below a folder, and which of what lies there cannot be looked at?

1. Folders are listed one after the other, links to folders after all real ones, so that a clip that
   can be reached both ways keeps the name it has without the link.
2. Every real folder is listed once, by whatever way it is reached: a link in a circle ends here.
3. What cannot be listed, links that lead nowhere, and what is no file (a pipe would never answer)
   come out as problems, one sentence each. Hidden names are left out.

No file is opened.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from .shards import Skipped

_Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that was listed: its path and the names of its files, sorted, none hidden."""

    path: Path
    files: tuple[str, ...]


@dataclass(slots=True)
class Walk:
    """All folders below `top`, itself first.

    hidden: a folder that is left out, with all in it; None for none. problems: what could not be
    looked at, by its path relative to `top`.
    """

    top: Path
    hidden: _Key | None = None
    folders: list[Folder] = field(default_factory=list[Folder])
    problems: list[Skipped] = field(default_factory=list[Skipped])
    _seen: dict[_Key, str] = field(default_factory=dict[_Key, str])
    _waiting: deque[Path] = field(default_factory=deque[Path])
    _links: deque[Path] = field(default_factory=deque[Path])

    def run(self) -> None:
        """List everything; `folders` and `problems` are complete then."""
        self._waiting.append(self.top)
        while self._waiting or self._links:
            self._list((self._waiting or self._links).popleft())

    def source(self, path: Path) -> str:
        """`path` relative to the top, with forward slashes."""
        return path.relative_to(self.top).as_posix()

    def _problem(self, path: Path, reason: str) -> None:
        self.problems.append(Skipped(self.source(path), reason))

    def _list(self, at: Path) -> None:
        try:
            key = _key(at)
            if key == self.hidden and at != self.top:
                return
            if key in self._seen:
                self._problem(at, f"it is {self._seen[key]} once more; clips are taken once.")
                return
            self._seen[key] = self.source(at)
            names = sorted(name for name in os.listdir(at) if name[0] != ".")
        except OSError as error:
            self._problem(at, f"the folder cannot be read: {error.strerror}.")
            return
        files = tuple(name for name in names if self._is_file(at / name))
        self.folders.append(Folder(at, files))

    def _is_file(self, path: Path) -> bool:
        """Whether it is a file; folders are put aside, and what is neither is a problem."""
        try:
            mode = path.stat().st_mode
        except OSError as error:
            lost = path.is_symlink()
            said = "the link leads nowhere" if lost else "it cannot be looked at"
            self._problem(path, f"{said}: {error.strerror}.")
            return False
        if stat.S_ISDIR(mode):
            (self._links if path.is_symlink() else self._waiting).append(path)
        elif not stat.S_ISREG(mode):
            self._problem(path, "it is no file, but a pipe, a socket or a device.")
        return stat.S_ISREG(mode)


def _key(path: Path) -> _Key:
    """What tells one folder from another, whatever it is called."""
    found = path.stat()
    return found.st_dev, found.st_ino


def walk(top: Path, hidden: Path) -> Walk:
    """Everything below `top` but the folder `hidden`, which need not exist."""
    try:
        found = Walk(top, _key(hidden))
    except OSError:
        found = Walk(top)
    found.run()
    return found
