"""Can a file be read or written, and how is one written so that nobody ever sees half of it?

1. `check_input`, `check_output` and `check_distinct` refuse names that cannot work, by trying,
   before anything is computed.
2. `whole_file` hands out a temporary name in the same folder. When the block ends well, the file
   is flushed to the disk and renamed to its real name, which the system does in one step; when the
   block raises, also by Ctrl-C, the temporary file is deleted.

A kill -9 or a power cut may leave a hidden `.part` file, never a broken real one; `clear_parts`
deletes those.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import tempfile
import time
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
    """Raise `VideoError` unless a file of that name can be written, as far as trying shows.

    suffixes: the endings that its name may have, lower case, with the dot.
    """
    if path.suffix.lower() not in suffixes:
        raise VideoError(
            f"an output file must end in {' or '.join(sorted(suffixes))}; got {str(path)!r}."
        )
    check_name(path, windows=os.name == "nt")
    with _refusals_named(path):
        folder = path.parent
        if path.is_dir():
            raise VideoError(f"{path} is a folder; name a file in it.")
        if not folder.is_dir():
            raise VideoError(
                f"cannot write {path}: its folder {folder} does not exist. Create it first."
            )
        with _part_beside(path):
            pass
        if path.exists():
            os.replace(path, path)  # on Windows refused while another program has it open


_WINDOWS_REFUSES = re.compile(r'[<>:"|?*]|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


def check_name(path: Path, *, windows: bool) -> None:
    """Raise `VideoError` for a name that no file can have.

    windows: whether the rules are those of Windows, which would open a device or a hidden stream
    of another file without a word.
    """
    with _refusals_named(path), contextlib.suppress(FileNotFoundError):
        os.stat(path)  # refused where it is too long
    if windows and (found := _WINDOWS_REFUSES.search(path.name)):
        raise VideoError(
            f"cannot write {path}: on Windows no file name may hold {found[0]!r}; choose another."
        )


@contextmanager
def _refusals_named(path: Path) -> Generator[None]:
    """Raise what the system says against writing as `VideoError`."""
    try:
        yield
    except (OSError, ValueError) as error:  # a ValueError for a name with a zero byte
        said = getattr(error, "strerror", None) or error
        raise VideoError(f"cannot write {path}: {said}.") from error


def check_distinct(source: Path | None, *outputs: Path | None) -> None:
    """Raise `VideoError` where an output would replace an input."""
    if source is None or not source.exists():
        return
    for output in outputs:
        if output is not None and output.exists() and output.samefile(source):
            raise VideoError(f"{output} is the input itself; give the output another name.")


_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""What file systems say that cannot wait for a disk, having none."""


def _to_disk(path: Path) -> None:
    """Wait until the system has written a file to its disk.

    Opened for writing: Windows flushes no other file.
    """
    with path.open("r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise


_PAUSES_SECONDS = (0.05, 0.2, 0.8)


def _into_place(part: Path, path: Path) -> None:
    """Give a finished file its name. On Windows, virus scanners hold new files for a moment."""
    for pause in _PAUSES_SECONDS if os.name == "nt" else ():
        try:
            os.replace(part, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(part, path)


def clear_parts(folder: Path) -> int:
    """Delete what killed processes left half-written in `folder`; how many files that was."""
    parts = [path for path in folder.glob(".*.part*") if path.is_file()]
    for path in parts:
        path.unlink(missing_ok=True)
    return len(parts)


@contextmanager
def _part_beside(path: Path) -> Generator[Path]:
    """An empty file beside `path`, with its suffix; if it is still there in the end, it goes.

    Its name is short, so that it is never too long where that of `path` is not.
    """
    part = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")
    part.touch(exist_ok=False)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Generator[Path]:
    """A temporary name beside `path`, with its suffix, that becomes `path` if the block ends
    without an error.

    What the system says against writing (a full disk, a missing right) is raised as `VideoError`.
    """
    check_name(path, windows=os.name == "nt")
    try:
        with _part_beside(path) as part:
            mode = part.stat().st_mode  # what new files get here; safetensors would take less
            yield part
            part.chmod(mode)
            _to_disk(part)
            _into_place(part, path)
    except OSError as error:
        raise VideoError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def plainly_named(path: Path) -> Generator[Path]:
    """A name of the file at `path` that any library can read: for a name that is not UTF-8, a link
    in a folder of its own for as long as the block lasts.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="exact_video_vae_") as folder:
            link = Path(folder, "file").with_suffix(path.suffix)
            link.symlink_to(path.absolute())
            yield link
    else:
        yield path
