"""Do several processes over gloo share the work, and does none hang where one dies?"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rank_process import TIMEOUT_S
from safetensors.torch import load_file

import vae_core

HERE = Path(__file__).parent


def said(*words: str, folder: Path) -> dict[str, list]:
    """What `rank_process.py` prints."""
    mode, *rest = words
    command = [sys.executable, str(HERE / "rank_process.py"), mode, str(folder), *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_give_what_one_gives(tmp_path) -> None:
    assert max(said("equal", "cogvideox", "2", folder=tmp_path)["2"]) <= 1e-12


@pytest.mark.slow
def test_any_number_of_processes_gives_what_one_gives(tmp_path, capsys) -> None:
    """Two clips of 1, 5 and 21 frames and odd heights, both ways; of CogVideoX both scopes."""
    found = said("grid", "1", "2", "3", "4", "7", folder=tmp_path)
    assert sorted(found) == ["1", "2", "3", "4", "7"]
    for count, ranks in found.items():
        worst = {name: max(rank[name] for rank in ranks) for name in ranks[0]}
        assert len(worst) == 24
        for name, difference in worst.items():
            assert difference <= (1e-5 if "float32" in name else 1e-12), (count, name)
        with capsys.disabled():
            far = {kind: max(d for name, d in worst.items() if kind in name) for kind in DTYPES}
            print(f"\n{count} ranks: {far}")  # noqa: T201


DTYPES = ("float32", "float64")


@pytest.mark.slow
def test_torchrun_writes_one_file_with_what_one_process_writes(tmp_path) -> None:
    def encode(name: str, *launcher: str) -> Path:
        options = ("--size", "40x64", "--max-frames", "5", "--device", "cpu", "--dtype", "float64")
        path = tmp_path / f"{name}.safetensors"
        words = ("-m", "vae_core", "encode", str(vae_core.sample_clip_path()), "-o", str(path))
        subprocess.run([sys.executable, *launcher, *words, *options], check=True, timeout=300)
        return path

    alone = encode("alone")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    shared = encode("shared", *launcher)
    for name, latents in load_file(alone).items():
        assert torch.allclose(load_file(shared)[name], latents, rtol=0, atol=1e-6)
    assert sorted(tmp_path.iterdir()) == [alone, shared]


@pytest.mark.slow
def test_others_end_with_a_sentence_where_a_process_is_killed(tmp_path, capsys) -> None:
    """At ten random tiles of its share."""
    found = said("kill", "10", folder=tmp_path)
    assert len(found) == 10
    waited = []
    for zero, one, two in found.values():
        assert one is None
        for sentence, seconds in (zero, two):
            assert "lost another one: none may fail" in sentence
            assert "\n" not in sentence
            waited.append(seconds)
    assert max(waited) <= TIMEOUT_S
    with capsys.disabled():
        print(f"\nothers ended {min(waited):.2f} to {max(waited):.2f} s after it")  # noqa: T201


DYING = """
import itertools, os, signal, sys
from vae_core import cli
from vae_core.running.tile import TileRunner
run, tiles, last = TileRunner.run, itertools.count(), int(sys.argv[1])
def dying(self, *args):
    if next(tiles) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    run(self, *args)
TileRunner.run = dying
sys.exit(cli.main(sys.argv[2:]))
"""


def together(words: tuple[str, ...], last_tile: int) -> list[tuple[int, str]]:
    """How two processes that do a command end, exit code and what they complain of, when the second
    one dies at a tile.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DYING, str(last_tile if rank else -1), *words],
            env={**os.environ, **where, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    complaints = [one.communicate(timeout=600)[1] for one in processes]
    return [(one.returncode, told) for one, told in zip(processes, complaints, strict=True)]


SIZE = ("--size", "64x48", "--max-frames", "9")


@pytest.fixture(scope="module")
def latents(tmp_path_factory) -> Path:
    """What `decode` is given."""
    path = tmp_path_factory.mktemp("latents") / "latents.safetensors"
    words = ("-m", "vae_core", "encode", str(vae_core.sample_clip_path()), "-o", str(path), *SIZE)
    subprocess.run([sys.executable, *words, "--quiet"], check=True, timeout=600)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("last_tile", random.Random(20).sample(range(60), 10))
def test_nothing_is_half_written_where_a_process_is_killed(last_tile, latents, tmp_path) -> None:
    """By turns in `encode` and in `decode`, at ten random tiles."""
    if last_tile % 2:
        made, words = "made.safetensors", ("encode", str(vae_core.sample_clip_path()), *SIZE)
    else:
        made, words = "made.mp4", ("decode", str(latents))
    end = ("-o", str(tmp_path / made), "--device", "cpu", "--tile", "16", "--quiet")
    (code, complaint), (killed, _) = together((*words, *end), last_tile)
    assert killed == -signal.SIGKILL
    assert code == 2
    assert "rank 0 of 2 lost another one" in complaint
    assert complaint.count("error:") == 1
    assert not list(tmp_path.iterdir())
