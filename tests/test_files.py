"""Do files appear whole or not at all, under any name, and by the rules of every system?"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_core import VideoError
from vae_core.media import files
from vae_core.media.files import check_distinct, check_name, check_output, whole_file
from vae_core.media.latent_file import LatentMeta, load_latents, save_latents
from vae_core.media.latent_stream import Kept, LatentFile, MomentSpool, write_spooled
from vae_core.media.video_writing import write_video

CLIP = np.zeros((3, 32, 48, 3), np.uint8)
LATENTS = torch.zeros(1, 16, 1, 4, 4)


def spooled(path: Path) -> None:
    with MomentSpool(path.parent) as spool:
        spool.add(torch.zeros(1, 32, 1, 4, 4))
        write_spooled(path, spool, LatentMeta(), Kept())


def plain(path: Path) -> None:
    with whole_file(path) as part:
        part.write_text("{}")


WRITERS: dict[str, Callable[[Path], None]] = {
    "out.mp4": lambda path: write_video(path, CLIP, Fraction(8)),
    "out.mov": lambda path: write_video(path, CLIP, Fraction(8)),
    "out.mkv": lambda path: write_video(path, CLIP, Fraction(8)),
    "out.webm": lambda path: write_video(path, CLIP, Fraction(8)),
    "out.latent": lambda path: save_latents(path, LATENTS, LatentMeta()),
    "out.safetensors": spooled,
    "out.json": plain,
}


def opened_now(path: object) -> bool:
    """Whether this process has that file open or mapped."""
    names = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    real = os.path.realpath(str(path))
    return real in names or real in Path("/proc/self/maps").read_text()


@pytest.fixture
def windows_rules(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files are flushed only where they are open for writing, renamed and deleted only where they
    are not open at all; the names of the calls that were held to this.
    """
    import fcntl

    calls: list[str] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def flush(fd: int) -> None:
        calls.append("flush")
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        fsync(fd)

    def rename(source: object, target: object) -> None:
        calls.append("rename")
        if opened_now(source) or opened_now(target):
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        replace(source, target)

    def delete(path: object, **kwargs: object) -> None:
        if opened_now(path):
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        unlink(path, **kwargs)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(os, "unlink", delete)
    return calls


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at open files in Linux' /proc")


@linux
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_keeps_to_what_windows_allows(
    tmp_path: Path, windows_rules: list[str], name: str
) -> None:
    for _ in range(2):  # a new file, and one that is replaced
        check_output(tmp_path / name, {Path(name).suffix})
        WRITERS[name](tmp_path / name)
    assert {"flush", "rename"} <= set(windows_rules)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@linux
def test_a_block_that_fails_leaves_nothing_by_windows_rules_either(
    tmp_path: Path, windows_rules: list[str]
) -> None:
    with pytest.raises(VideoError, match="there is no frame"):
        write_video(tmp_path / "out.mp4", [], Fraction(8))
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_file_that_a_player_has_open_is_refused_before_the_run(
    tmp_path: Path, windows_rules: list[str]
) -> None:
    (tmp_path / "out.mp4").write_text("before")
    with (
        (tmp_path / "out.mp4").open("rb"),
        pytest.raises(VideoError, match=r"cannot write .*out\.mp4: The process cannot access"),
    ):
        check_output(tmp_path / "out.mp4", {".mp4"})
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_file_system_without_a_disk_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    plain(tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "{}"


def test_a_disk_that_is_full_at_the_last_moment_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(VideoError, match=r"out\.json: No space left"):
        plain(tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def longest(folder: Path) -> int:
    """Bytes that a file's name may have there."""
    return os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255


@pytest.mark.parametrize("letter", ["a", "é"])
@pytest.mark.parametrize("short_of_longest", [0, 1, 7, 14, 15])
@pytest.mark.parametrize("name", WRITERS)
def test_names_as_long_as_the_system_has_them_are_written(
    tmp_path: Path, name: str, short_of_longest: int, letter: str
) -> None:
    suffix, size = Path(name).suffix, len(letter.encode())
    letters = (longest(tmp_path) - short_of_longest - len(suffix)) // size
    path = tmp_path / (letter * letters + suffix)
    check_output(path, {suffix})
    WRITERS[name](path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_longer_names_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    suffix = Path(name).suffix
    path = tmp_path / ("a" * (longest(tmp_path) + 1 - len(suffix)) + suffix)
    for act in (lambda: check_output(path, {suffix}), lambda: WRITERS[name](path)):
        with pytest.raises(VideoError, match=r"cannot write .*too long"):
            act()
    assert list(tmp_path.iterdir()) == []


ODD = [
    "12:30",
    "pipe:1",
    "http:x",
    "-x",
    "a%03d",
    "new\nline",
    "two  blanks",
    "m²",
    "名前",
    ".hidden",
]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows has not")
@pytest.mark.parametrize("stem", [*ODD, "no\udcffutf8"])
@pytest.mark.parametrize("name", WRITERS)
def test_odd_names_are_names_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(stem + Path(name).suffix)
    check_output(path, {path.suffix})
    WRITERS[name](path)
    assert os.listdir() == [str(path)]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows has not")
@pytest.mark.parametrize("where", ["name", "folder"])
def test_latents_are_read_back_from_a_name_that_is_not_utf_8(tmp_path: Path, where: str) -> None:
    folder = tmp_path / ("no\udcffutf8" if where == "folder" else "folder")
    folder.mkdir()
    path = folder / ("no\udcffutf8.latent" if where == "name" else "a.latent")
    save_latents(path, LATENTS + 1, LatentMeta(vae="vae\udcff"))
    latents, meta = load_latents(path)
    assert torch.equal(latents, LATENTS + 1)
    assert meta.vae == r"vae\udcff"
    with LatentFile(path) as file:
        assert file.shape == tuple(LATENTS.shape)
    assert os.listdir(folder) == [path.name]


@pytest.mark.parametrize(
    "name", ["12:30.mp4", 'a"b.mp4', "what?.mp4", "NUL.mp4", "com1.mp4", "aux.tar.mp4"]
)
def test_what_windows_takes_for_something_else_is_refused_there(name: str) -> None:
    check_name(Path(name), windows=False)
    with pytest.raises(VideoError, match="on Windows no file name may hold"):
        check_name(Path(name), windows=True)


@pytest.mark.parametrize("name", ["out.mp4", "null.mp4", "com.mp4", "my con.mp4", "é².mp4"])
def test_what_windows_takes_for_a_name_is_one(name: str) -> None:
    check_name(Path(name), windows=True)


def test_a_folder_without_rights_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's refusals are played: who runs the tests may have every right."""
    folder = tmp_path / "closed"
    folder.mkdir()
    touch = Path.touch

    def refuse(self: Path, **kwargs: object) -> None:
        if self.parent == folder:
            raise PermissionError(errno.EACCES, "Permission denied")
        touch(self, **kwargs)

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(VideoError, match=r"cannot write .*out\.mp4: Permission denied"):
        check_output(folder / "out.mp4", {".mp4"})


def test_a_folder_that_may_not_be_looked_into_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.stat

    def refuse(path: object, **kwargs: object) -> os.stat_result:
        if str(path).endswith("out.mp4"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(path, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(VideoError, match=r"out\.mp4: Permission denied"):
        check_output(tmp_path / "out.mp4", {".mp4"})
    with pytest.raises(VideoError, match=r"out\.mp4 cannot be read: Permission denied"):
        files.check_input(tmp_path / "out.mp4")


def test_trying_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    check_output(path, {".mp4"})
    assert list(tmp_path.iterdir()) == []
    path.write_text("before")
    check_output(path, {".mp4"})
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_replaces_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("a")
    (tmp_path / "b.mp4").hardlink_to(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="is the input itself"):
        check_distinct(tmp_path / "a.mp4", None, tmp_path / "b.mp4")
    check_distinct(tmp_path / "missing.mp4", tmp_path / "a.mp4")
    check_distinct(None, tmp_path / "a.mp4")
