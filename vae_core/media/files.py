"""Can a file be read or written, and how is one written so that nobody ever sees half of it?

1. `check_input`, `check_output` and `check_distinct` refuse names that cannot work, before anything
   is computed.
2. `whole_file` hands out a temporary name in the same folder. When the block ends well, the file
   is flushed to the disk and renamed to its real name, which the system does in one step; when the
   block raises, also by Ctrl-C, the temporary file is deleted.

A kill -9 or a power cut may leave a hidden `.part` file, never a broken real one; `clear_parts`
deletes those.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import VideoError


def check_input(path: Path) -> None:
    """Raise `VideoError` unless `path` is a file with something in it, a pipe or a folder."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise VideoError(f"{path} does not exist.") from error
    except (OSError, ValueError) as error:  # no right to look, or no name that a file can have
        said = getattr(error, "strerror", None) or error
        raise VideoError(f"{path} cannot be read: {said}.") from error
    if size == 0 and path.is_file():
        raise VideoError(f"{path} is empty (0 bytes); the copy or download has probably failed.")


def check_output(path: Path, suffixes: Collection[str]) -> None:
    """Raise `VideoError` unless a file of that name can be written.

    suffixes: the endings that its name may have, lower case, with the dot.
    """
    if path.suffix.lower() not in suffixes:
        raise VideoError(
            f"an output file must end in {' or '.join(sorted(suffixes))}; got {str(path)!r}."
        )
    if path.is_dir():
        raise VideoError(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise VideoError(
            f"cannot write {path}: its folder {path.parent} does not exist. Create it first."
        )
    if not os.access(path.parent, os.W_OK):
        raise VideoError(f"cannot write {path}: the folder {path.parent} is not writable.")


def check_distinct(source: Path, *outputs: Path | None) -> None:
    """Raise `VideoError` where an output would replace the input."""
    for output in outputs:
        if output is not None and output.exists() and output.samefile(source):
            raise VideoError(f"{output} is the input itself; give the output another name.")


def _to_disk(path: Path) -> None:
    """Wait until the system has written a file to its disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def clear_parts(folder: Path) -> int:
    """Delete what killed processes left half-written in `folder`; how many files that was."""
    parts = [path for path in folder.glob(".*.part*") if path.is_file()]
    for path in parts:
        path.unlink(missing_ok=True)
    return len(parts)


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A temporary name beside `path`, with its suffix, that becomes `path` if the block ends
    without an error.

    What the system says against writing (a full disk, a missing right) is raised as `VideoError`.
    """
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode  # what new files get here; safetensors would give itself less
        yield part
        part.chmod(mode)
        _to_disk(part)
        part.replace(path)
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
