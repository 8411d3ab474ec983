"""Do core's nodes give the untiled network's result through our engine, with a Mochi VAE?

A narrow network with random weights; core's own class at that width, untiled, is the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host.client import Client, Prompt
from host.workflow import distance
from networks_mochi import authors_state, narrow_mochi, unsettled
from safetensors.torch import save_file

pytestmark = pytest.mark.host

NAME = "mochi_narrow.safetensors"
CLIP = {"frames": 13, "height": 48, "width": 72, "seed": 0, "negate": False}
TILED = {"tile_size": 64, "overlap": 16, "temporal_size": 8, "temporal_overlap": 4}
MOST = 1e-4


def write_weights(folder: Path) -> None:
    """A narrow network, float32."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = unsettled(narrow_mochi(latent_channels=12, layers=(3, 1, 1, 1, 1)))
    save_file(authors_state(module), folder / NAME)


@pytest.fixture(scope="module")
def mochi(client: Client) -> Client:
    """A client of a host that knows Mochi, with a VAE of it in models/vae."""
    write_weights(client.base / "models/vae")
    loaded = {"1": node("TestNarrowMochi", vae_name=NAME)}
    told = {"2": node("TestCapture", value=["1", 1], name="told")}
    if client.run({**loaded, **told}).end == "execution_error":
        pytest.skip("this ComfyUI has no Mochi")
    return client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


LOADERS = {
    "core": {"1": node("TestNarrowMochi", vae_name=NAME)},
    "applied": {
        "0": node("TestNarrowMochi", vae_name=NAME),
        "1": node(
            "ExactVAEApply",
            vae=["0", 0],
            chunk_size=8,
            norm_scope="chunk",
            memory_budget=0.0,
            reference="core",
        ),
    },
    "loaded": {"1": node("ExactVAELoader", vae_name=NAME, dtype="auto", reference="core")},
}


def through(host: Client, loader: Prompt, nodes: Prompt) -> torch.Tensor:
    """What node "9" gives where the VAE comes from `loader`, whose last node is "1"."""
    capture = {"capture": node("TestCapture", value=["9", 0], name="mochi")}
    host.succeed({**loader, **nodes, **capture})
    return host.captured("mochi")


def coded(kind: str, frames: int = 13, **widgets: Any) -> Prompt:
    """A clip through core's encoding, or latents through its decoding node."""
    if kind.startswith("VAEEncode"):
        start = node("TestClip", **{**CLIP, "frames": frames})
        return {"8": start, "9": node(kind, pixels=["8", 0], vae=["1", 0], **widgets)}
    start = node("TestLatents", frames=(frames + 5) // 6, rows=6, columns=9, seed=0, channels=12)
    return {"8": start, "9": node(kind, samples=["8", 0], vae=["1", 0], **widgets)}


@pytest.mark.parametrize("job", ["VAEEncode", "VAEDecode"])
@pytest.mark.parametrize(
    ("frames", "tiles"),
    [(13, {}), (13, TILED), (1, {})],
    ids=["untiled", "small tiles", "one picture"],
)
def test_cores_own_nodes_equal_core_untiled(
    mochi: Client, job: str, frames: int, tiles: dict, capsys
):
    kind = f"{job}Tiled" if tiles else job
    wanted = through(mochi, LOADERS["core"], coded(job, frames))
    found = {}
    for name in ("applied", "loaded"):
        got = through(mochi, LOADERS[name], coded(kind, frames, **tiles))
        assert got.shape == wanted.shape
        found[name] = distance(got, wanted)
    with capsys.disabled():
        print(f"\n{kind}, {frames} frames: {found}")  # noqa: T201
    assert max(found.values()) <= MOST


def test_decoding_needs_no_widget_to_equal_core(mochi: Client):
    wanted = through(mochi, LOADERS["core"], coded("VAEDecode"))
    official = {"1": node("ExactVAELoader", vae_name=NAME, dtype="auto")}
    assert distance(through(mochi, official, coded("VAEDecode")), wanted) <= MOST


def test_core_s_latents_of_clips_are_others_than_the_authors(mochi: Client):
    official = {"1": node("ExactVAELoader", vae_name=NAME, dtype="auto")}
    found = [through(mochi, one, coded("VAEEncode")) for one in (official, LOADERS["core"])]
    assert distance(*found) > 1e-3
    first = [through(mochi, one, coded("VAEEncode", 1)) for one in (official, LOADERS["core"])]
    assert distance(*first) <= MOST
