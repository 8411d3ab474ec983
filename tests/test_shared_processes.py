"""Do several processes over gloo share the work, and does none hang where one dies?"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_others_end_with_a_sentence_where_a_process_is_killed(tmp_path) -> None:
    """At ten random tiles of its share, of which there are about a hundred and fifty."""
    steps = [str(at) for at in sorted(random.Random(20).sample(range(90), 10))]
    for zero, one, two in said("kill", *steps, folder=tmp_path).values():
        assert one is None
        for sentence, seconds in (zero, two):
            assert "lost another one: none may fail" in sentence
            assert "\n" not in sentence
            assert seconds < 60
