"""Is the pack a good citizen of a running host: refusals, interruption, memory?"""

from __future__ import annotations

from typing import Any

import pytest
from host.client import Client, Prompt
from host.server import ROOT

pytestmark = pytest.mark.host

TINY = "tiny_vae (ships with this pack, for trying out)"
NODES = {
    "ExactVAEApply",
    "ExactVAEDecodeFramewise",
    "ExactVAEDecodeVideo",
    "ExactVAEEncodeTiled",
    "ExactVAEEncodeVideo",
    "ExactVAELatentConvert",
    "ExactVAELoader",
    "ExactVAEPlan",
}
RUN = {
    "chunk_size": 8,
    "tile_size": 0,
    "overlap": 64,
    "tiling": "exact",
    "norm_scope": "chunk",
    "memory_budget": 0.0,
}
FIT = {"frame_policy": "pad", "size_policy": "pad", "posterior": "mode", "sample_seed": 0}
MOST_GROWTH = 1.05


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


def round_trip(frames: int, height: int, width: int, seed: int = 0) -> Prompt:
    """A random clip to latents and back, both written out."""
    clip = {"frames": frames, "height": height, "width": width, "seed": seed, "negate": False}
    return {
        "1": node("ExactVAELoader", vae_name=TINY, dtype="auto"),
        "2": node("TestClip", **clip),
        "3": node("ExactVAEEncodeTiled", images=["2", 0], vae=["1", 0], **RUN, **FIT),
        "4": node("ExactVAEDecodeFramewise", samples=["3", 0], vae=["1", 0], **RUN),
        "5": node("TestCapture", value=["3", 0], name="latents"),
        "6": node("TestCapture", value=["4", 0], name="pictures"),
    }


def test_the_host_lists_every_node(client: Client):
    object_info = client.object_info()
    ours = {name for name in object_info if name.startswith("ExactVAE")}
    assert ours == NODES
    for name in NODES:
        info = object_info[name]
        assert info["python_module"] == "custom_nodes.exact-video-vae"
        assert info["category"] == "Exact Video VAE"
        assert info["description"]
        assert len(info["output_tooltips"]) == len(info["output"])


def test_the_host_serves_what_the_web_client_loads(client: Client):
    scripts = client.ask("/extensions")[1]
    ours = [path for path in scripts if "exact-video-vae" in path]
    shipped = {path.relative_to(ROOT / "web").as_posix() for path in (ROOT / "web").rglob("*.js")}
    assert {path.partition("exact-video-vae/")[2] for path in ours} == shipped


def test_the_example_workflows_are_among_the_templates(client: Client):
    templates = client.ask("/workflow_templates")[1]["exact-video-vae"]
    assert set(templates) == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


@pytest.mark.parametrize("key", ["3", "4"])
def test_a_bad_chunk_size_is_refused_when_it_is_queued(client: Client, key: str):
    prompt = round_trip(5, 24, 32)
    prompt[key]["inputs"]["chunk_size"] = 6
    del prompt["5"]  # an output that does not depend on the decoder would be run all the same
    status, answer = client.queue(prompt)
    assert status == 400
    (error,) = answer["node_errors"][key]["errors"]
    assert error["extra_info"]["input_name"] == "chunk_size"
    assert "chunk_size must be a multiple of 4" in error["details"]
    assert "Use 4 or 8" in error["details"]


def test_a_bad_chunk_size_over_a_wire_is_refused_on_execution(client: Client):
    prompt = round_trip(5, 24, 32)
    prompt["9"] = node("PrimitiveInt", value=6)
    prompt["3"]["inputs"]["chunk_size"] = ["9", 0]
    done = client.run(prompt)
    assert done.end == "execution_error"
    assert done.told["node_type"] == "ExactVAEEncodeTiled"
    assert "chunk_size must be a multiple of 4" in done.told["exception_message"]


def test_a_budget_that_is_too_small_is_refused_with_the_one_that_would_do(client: Client):
    prompt = round_trip(5, 24, 32)
    prompt["3"]["inputs"]["memory_budget"] = 0.0001
    done = client.run(prompt)
    assert done.end == "execution_error"
    assert "smallest budget that fits" in done.told["exception_message"]


def test_the_same_prompt_again_computes_nothing(client: Client):
    prompt = round_trip(5, 24, 40, seed=3)
    client.succeed(prompt)
    again = client.succeed(prompt)
    (cached,) = again.of("execution_cached")
    assert {"1", "3", "4"} <= set(cached["nodes"])
    assert not again.of("progress")


def test_an_interrupt_ends_the_prompt_at_once_and_leaves_nothing_behind(client: Client, capsys):
    for seed in range(3):
        client.succeed(round_trip(17, 96, 128, seed))
    before = client.resident_bytes()
    shares: list[float] = []

    def stop_midway(event: dict[str, Any]) -> None:
        data = event["data"]
        if event["type"] != "progress" or data["node"] != "4":
            return
        before = max(shares, default=0.0)
        shares.append(data["value"] / data["max"])
        if before <= 0.3 < shares[-1]:
            client.interrupt()

    done = client.run(round_trip(17, 96, 128, seed=10), on_event=stop_midway)
    assert done.end == "execution_interrupted"
    assert 0.3 < max(shares) < 1.0
    client.succeed(round_trip(17, 96, 128, seed=11))
    growth = client.resident_bytes() / before
    with capsys.disabled():
        print(f"\ndone at the end: {max(shares):.2f}; resident memory x {growth:.3f}")  # noqa: T201
    assert growth < MOST_GROWTH


def test_thirty_prompts_of_alternating_sizes_leave_memory_as_it_was(client: Client, capsys):
    sizes = [(9, 96, 128), (17, 64, 96), (5, 120, 88)]
    resident = []
    for index in range(30):
        client.succeed(round_trip(*sizes[index % len(sizes)], seed=100 + index))
        resident.append(client.resident_bytes())
    growth = max(resident[3:]) / max(resident[:3])
    with capsys.disabled():
        mib = [round(size / 2**20) for size in resident]
        print(f"\nresident MiB over 30 prompts {mib}: x {growth:.3f}")  # noqa: T201
    assert growth < MOST_GROWTH
