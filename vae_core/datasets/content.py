"""Is a clip still the one that its latents were made from?

1. A clip's content is told by a digest of all its bytes; that of a folder of pictures has their
   names in it, too.
2. Reading everything again only to see that nothing has changed would take hours: a `Stamp` is what
   the system says of a file, and as long as it stays the same, so does the digest that was found.
3. Stamps are kept in a hidden file beside the results. They save reading and decide nothing: where
   they are gone, or a folder was copied, files are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..errors import VideoError
from ..media.files import whole_file
from ..media.pictures import PICTURE_SUFFIXES

STAMPS = ".stamps.json"
_BLOCK_BYTES = 1 << 20
_DIGEST_BYTES = 12


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the system says of a clip's files.

    size_bytes: of all together. changed_ns: when the newest was written. text: changes with any.
    """

    size_bytes: int
    changed_ns: int
    text: str


def bytes_of(name: str) -> bytes:
    """A path's bytes, also where they are no UTF-8: Python has such ones as lone surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, as Windows allows it
        return name.encode("utf-8", "surrogatepass")


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """The stamp of a clip that is made of these files. Raises `OSError`."""
    found = [path.stat() for path in paths]
    said = [(one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for one in found]
    names = [path.name for path in paths[1:]]
    text = hashlib.blake2b(repr((said, names)).encode())
    size, changed = sum(one.st_size for one in found), max(one.st_mtime_ns for one in found)
    return Stamp(size, changed, text.hexdigest()[: 2 * _DIGEST_BYTES])


def digest_of(path: Path) -> str:
    """What tells the content of a clip from any other. Raises `OSError`."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    if not path.is_dir():
        _add_file(digest, path)
        return digest.hexdigest()
    for one in sorted(path.iterdir()):
        if one.suffix.lower() in PICTURE_SUFFIXES and one.name[0] != ".":
            digest.update(bytes_of(one.name) + b"\0")
            _add_file(digest, one)
    return digest.hexdigest()


def _add_file(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)


def load_stamps(folder: Path) -> dict[str, tuple[str, str]]:
    """Stamp and digest by source, as an earlier run left them; none where they cannot be read."""
    try:
        said: Any = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    return {
        source: (pair[0], pair[1])
        for source, pair in pairs.items()
        if isinstance(pair, list) and len(cast("list[Any]", pair)) == 2
    }


def save_stamps(folder: Path, stamps: Mapping[str, tuple[str, str]]) -> None:
    """Leave them for the next run. Raises `VideoError`."""
    with whole_file(folder / STAMPS) as part:
        part.write_text(json.dumps(dict(sorted(stamps.items()))), encoding="utf-8")


def is_same(path: Path, stamp: Stamp, known: tuple[str, str] | None, content: str) -> bool:
    """Whether a clip's content is the one of that digest.

    known: an earlier stamp and the digest that was found then. A clip that cannot be read is not.
    """
    if known == (stamp.text, content):
        return True
    try:
        return digest_of(path) == content
    except (OSError, VideoError):
        return False
