"""Activations in a temporary file: same pixels, announced, refused in time, and gone afterwards."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from contract import assert_close
from networks import random_latents, random_module, random_video

from vae_core import BudgetError, DiskError, Settings, from_module
from vae_core.running import stores
from vae_core.running.stores import allocate
from vae_core.settings import Place

DISK = Settings(placement="mmap", norm_scope="clip", tile_px=16)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that takes all temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_activations_on_disk_change_no_pixel(temporary: Path, caplog) -> None:
    vae, video, latents = (
        from_module(random_module()),
        random_video(17, 24, 40),
        random_latents(5, 3, 5),
    )
    with caplog.at_level(logging.WARNING, "vae_core"):
        moments = vae.encode(video, DISK).moments
    assert "go to a temporary file in" in caplog.text
    memory = Settings(norm_scope="clip", tile_px=16)
    assert torch.equal(moments, vae.encode(video, memory).moments)
    assert_close(vae.decode(latents, DISK), vae.decode(latents, memory), 1e-6)
    assert not list(temporary.iterdir())


def test_a_store_on_disk_has_no_name_even_while_it_lives(temporary: Path) -> None:
    store = allocate((1, 2, 3, 4, 5), torch.bfloat16, torch.device("cpu"), Place.DISK)
    store.fill_(2)
    assert store.sum() == 240
    if os.name == "posix":
        assert not list(temporary.iterdir())


def test_a_store_on_disk_may_hold_nothing(temporary: Path) -> None:
    store = allocate((1, 2, 3, 0, 5), torch.bfloat16, torch.device("cpu"), Place.DISK)
    assert store.shape == (1, 2, 3, 0, 5)
    assert store.dtype == torch.bfloat16


def test_a_disk_without_room_is_refused_with_both_numbers(temporary: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 2**10))
    calls = []
    settings = Settings(placement="mmap", on_progress=calls.append)
    with pytest.raises(BudgetError, match=r"temporary file of .* MiB is needed in .*0\.0 MiB free"):
        from_module(random_module()).encode(random_video(9, 64, 64), settings)
    assert not calls


class Disk:
    """What files take of a disk, from when they are made until their last reference goes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int | None = None) -> None:
        self.used = self.most = 0
        self._room = room
        made = stores._mapped

        def mapped(count: int, dtype: torch.dtype) -> torch.Tensor:
            size = count * dtype.itemsize
            flat = made(count, dtype)
            self.used += size
            self.most = max(self.most, self.used)
            weakref.finalize(flat.untyped_storage(), self._gone, size)
            return flat

        def reserve(number: int, start: int, size: int) -> None:
            if self._room is not None and self.used + size > self._room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.truncate(number, size)

        monkeypatch.setattr(stores, "_mapped", mapped)
        monkeypatch.setattr(os, "posix_fallocate", reserve, raising=False)

    def _gone(self, size: int) -> None:
        self.used -= size


@pytest.mark.parametrize("chunk_frames", [4, 8])
@pytest.mark.parametrize("frames", [5, 9, 21])
def test_no_more_is_on_disk_than_was_planned(
    temporary: Path, monkeypatch, frames: int, chunk_frames: int
) -> None:
    disk, vae = Disk(monkeypatch), from_module(random_module())
    settings = Settings(placement="mmap", chunk_frames=chunk_frames)
    video, latents = random_video(frames, 24, 40), random_latents((frames + 3) // 4, 3, 5)
    for plan, run, x in (
        (vae.plan_encode, vae.encode, video),
        (vae.plan_decode, vae.decode, latents),
    ):
        disk.most = 0
        run(x, settings)
        assert 0 < disk.most <= plan(x.shape, settings).far_bytes
        assert disk.used == 0


def test_a_disk_that_fills_up_midway_is_our_own_error(temporary: Path, monkeypatch) -> None:
    vae, latents = from_module(random_module()), random_latents(5, 3, 5)
    settings = Settings(placement="mmap")
    disk = Disk(monkeypatch, room=vae.plan_decode(latents.shape, settings).far_bytes // 2)
    told: list[object] = []
    with pytest.raises(DiskError, match=rf"{temporary}.* no room.*TMPDIR"):
        vae.decode(latents, Settings(placement="mmap", on_progress=told.append))
    assert told
    assert disk.used == 0
    assert not list(temporary.iterdir())


def test_a_disk_that_fills_up_under_a_stream_is_our_own_error(temporary: Path, monkeypatch) -> None:
    made = tempfile.TemporaryFile

    def full(*args, **kwargs):
        file = made(*args, **kwargs)

        def write(_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(file, "write", write, raising=False)
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    frames = iter(random_video(9, 24, 40).unbind(2))
    with pytest.raises(DiskError, match="no room"):
        list(from_module(random_module()).encode_stream(frames, DISK))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="nothing is reserved here")
def test_a_file_system_that_reserves_nothing_is_written_all_the_same(
    temporary: Path, monkeypatch
) -> None:
    def unable(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unable)
    store = allocate((1, 2, 3, 4, 5), torch.float32, torch.device("cpu"), Place.DISK)
    assert store.fill_(2).sum() == 240


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from networks import random_module, random_video
from vae_core import Settings, from_module

calls = 0
def die(progress):
    global calls
    calls += 1
    if calls == 40:
        sys.stdout.write("alive")
        sys.stdout.flush()
        os.kill(os.getpid(), 9)

settings = Settings(placement="mmap", norm_scope="clip", tile_px=16, on_progress=die)
from_module(random_module()).encode(random_video(17, 64, 64), settings)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a process that can be killed outright")
def test_a_killed_run_leaves_no_file_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "alive"
    assert not list(tmp_path.iterdir())
