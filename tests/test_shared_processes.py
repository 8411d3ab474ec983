"""Do several processes over gloo share the work, and does none hang where one dies?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import vae_core

HERE = Path(__file__).parent


def said(*words: str, folder: Path) -> dict[str, list]:
    """What `rank_process.py` prints."""
    mode, *rest = words
    command = [sys.executable, str(HERE / "rank_process.py"), mode, str(folder), *rest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_give_what_one_gives(tmp_path) -> None:
    assert max(said("equal", "cogvideox", "2", folder=tmp_path)["2"]) <= 1e-12


@pytest.mark.slow
def test_any_number_of_processes_gives_what_one_gives(tmp_path) -> None:
    families = "cogvideox,wan,hunyuan15"
    for found in said("equal", families, "1", "2", "3", "4", "7", folder=tmp_path).values():
        assert max(found) <= 1e-12


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
def test_others_end_with_a_sentence_where_a_process_is_killed(tmp_path) -> None:
    """At ten random tiles of its share."""
    found = said("kill", "10", folder=tmp_path)
    assert len(found) == 10
    for zero, one, two in found.values():
        assert one is None
        for sentence, seconds in (zero, two):
            assert "lost another one: none may fail" in sentence
            assert "\n" not in sentence
            assert seconds < 60
