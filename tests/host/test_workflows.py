"""Do the example workflows run as they are, and give what `vae_core` gives?"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from host.client import Client, Finished, Prompt
from host.server import ROOT
from host.workflow import Expected, captures, distance, to_prompt

from vae_core import VideoVAE
from vae_core.media.video import read_video

pytestmark = pytest.mark.host

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
MOST_DIFFERENCE = 1e-4
LEAST_PSNR_DB = 30.0


def rises_steadily(values: list[float], last: float) -> bool:
    """Never back, and to the end."""
    return all(a <= b for a, b in pairwise(values)) and values[0] < values[-1] == last


def check_progress(done: Finished) -> None:
    """Every node that showed progress showed all of it, and one of them not all at once."""
    shown: dict[str, list[dict]] = {}
    for event in done.of("progress"):
        shown.setdefault(event["node"], []).append(event)
    for events in shown.values():
        assert rises_steadily([event["value"] for event in events], events[-1]["max"])
    most = max(len({event["value"] for event in events}) for events in shown.values())
    assert most >= 2


def psnr_db(got: np.ndarray, expected: np.ndarray) -> float:
    """Of two runs of frames in [0, 255]."""
    error = float(((got.astype(np.float64) - expected) ** 2).mean())
    return 10 * float(np.log10(255.0**2 / max(error, 1e-9)))


def video_files(client: Client, prompt_id: str) -> dict[str, Path]:
    """{node: video file} that a prompt wrote."""
    outputs = client.ask(f"/history/{prompt_id}")[1][prompt_id]["outputs"]
    return {
        key: client.base / "output" / image["subfolder"] / image["filename"]
        for key, output in outputs.items()
        for image in output.get("images", [])
        if image["filename"].endswith(".mp4")
    }


def shipped_in(prompt: Prompt) -> str:
    """The name of the shipped VAE that a prompt loads."""
    loaders = (node for node in prompt.values() if node["class_type"] == "ExactVAELoader")
    (name,) = {node["inputs"]["vae_name"].partition(" ")[0] for node in loaders}
    return name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_workflow_gives_what_the_engine_gives(
    client: Client, engines: dict[str, VideoVAE], path: Path, capsys
):
    object_info = client.object_info()
    prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), object_info)
    kept = captures(prompt, object_info)
    done = client.succeed(prompt)
    check_progress(done)
    expected = Expected(prompt, engines[shipped_in(prompt)], client.base)
    differences = {}
    for name, key in kept.items():
        got, wanted = client.captured(name), expected.handed_on(key)
        assert got.shape == wanted.shape
        differences[name] = distance(got, wanted)
    for key, file in video_files(client, done.told["prompt_id"]).items():
        wanted = (expected.of(key) * 255).numpy()
        got = read_video(file).frames
        assert got.shape == wanted.shape
        assert psnr_db(got, wanted) > LEAST_PSNR_DB
    with capsys.disabled():
        print(f"\n{path.stem}: {done.seconds:.1f} s, {len(done.of('progress'))} progress events,")  # noqa: T201
        print(f"  {done.previews} previews, differences {differences}")  # noqa: T201
    assert kept
    assert max(differences.values()) <= MOST_DIFFERENCE
