"""Activations in a temporary file: same pixels, announced, refused in time, and gone afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from contract import assert_close
from networks import random_latents, random_module, random_video

from vae_core import BudgetError, Settings, from_module
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


def test_a_disk_without_room_is_refused_with_both_numbers(temporary: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**30, 2**30, 2**10))
    calls = []
    settings = Settings(placement="mmap", on_progress=calls.append)
    with pytest.raises(BudgetError, match=r"temporary file of .* MiB is needed in .*0\.0 MiB free"):
        from_module(random_module()).encode(random_video(9, 64, 64), settings)
    assert not calls


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
