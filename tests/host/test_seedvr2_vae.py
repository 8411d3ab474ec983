"""Do core's nodes give the untiled network's result through our engine, with a SeedVR2 VAE?

A narrow network with random weights; core's own class at that width, untiled, is the reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from host.client import Client, Prompt
from host.workflow import distance
from networks_seedvr2 import narrow_seedvr2, unsettled
from safetensors.torch import save_file

pytestmark = pytest.mark.host

NAME = "seedvr2_narrow.safetensors"
CLIP = {"frames": 9, "height": 48, "width": 72, "seed": 0, "negate": False}
TILED = {"tile_size": 64, "overlap": 16, "temporal_size": 8, "temporal_overlap": 4}
MOST = 1e-4


def write_weights(folder: Path) -> None:
    """A narrow network, float32."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    state = unsettled(narrow_seedvr2(latent_channels=16, layers=2)).state_dict()
    save_file(dict(state), folder / NAME)


@pytest.fixture(scope="module")
def seedvr2(client: Client) -> Client:
    """A client of a host that knows SeedVR2, with a VAE of it in models/vae."""
    write_weights(client.base / "models/vae")
    loaded = {"1": node("TestNarrowSeedVR2", vae_name=NAME)}
    told = {"2": node("TestCapture", value=["1", 1], name="told")}
    if client.run({**loaded, **told}).end == "execution_error":
        pytest.skip("this ComfyUI has no SeedVR2")
    return client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


LOADERS = {
    "core": {"1": node("TestNarrowSeedVR2", vae_name=NAME)},
    "applied": {
        "0": node("TestNarrowSeedVR2", vae_name=NAME),
        "1": node(
            "ExactVAEApply", vae=["0", 0], chunk_size=8, norm_scope="chunk", memory_budget=0.0
        ),
    },
    "loaded": {"1": node("ExactVAELoader", vae_name=NAME, dtype="auto")},
}


def through(host: Client, loader: Prompt, nodes: Prompt) -> torch.Tensor:
    """What node "9" gives where the VAE comes from `loader`, whose last node is "1"."""
    capture = {"capture": node("TestCapture", value=["9", 0], name="seedvr2")}
    host.succeed({**loader, **nodes, **capture})
    return host.captured("seedvr2")


def coded(kind: str, frames: int = 9, **widgets: Any) -> Prompt:
    """A clip through core's encoding, or latents through its decoding node."""
    if kind.startswith("VAEEncode"):
        start = node("TestClip", **{**CLIP, "frames": frames})
        return {"8": start, "9": node(kind, pixels=["8", 0], vae=["1", 0], **widgets)}
    start = node("TestLatents", frames=(frames + 3) // 4, rows=6, columns=9, seed=0)
    return {"8": start, "9": node(kind, samples=["8", 0], vae=["1", 0], **widgets)}


@pytest.mark.parametrize("job", ["VAEEncode", "VAEDecode"])
@pytest.mark.parametrize(
    ("frames", "tiles"),
    [(9, {}), (9, TILED), (1, {})],
    ids=["untiled", "small tiles", "one picture"],
)
def test_cores_own_nodes_equal_core_untiled(
    seedvr2: Client, job: str, frames: int, tiles: dict, capsys
):
    kind = f"{job}Tiled" if tiles else job
    wanted = through(seedvr2, LOADERS["core"], coded(job, frames))
    found = {}
    for name in ("applied", "loaded"):
        got = through(seedvr2, LOADERS[name], coded(kind, frames, **tiles))
        assert got.shape == wanted.shape
        found[name] = distance(got, wanted)
    with capsys.disabled():
        print(f"\n{kind}, {frames} frames: {found}")  # noqa: T201
    assert max(found.values()) <= MOST


def test_our_nodes_give_and_take_latents_as_core_scales_them(seedvr2: Client):
    run = {"chunk_size": 8, "tile_size": 32, "overlap": 64, "tiling": "exact"}
    run |= {"norm_scope": "chunk", "memory_budget": 0.0}
    fit = {"frame_policy": "pad", "size_policy": "pad", "posterior": "mode", "sample_seed": 0}
    ours = {
        "VAEDecode": coded("VAEDecode"),
        "VAEEncode": coded("VAEEncode"),
    }
    for job, kind, more in (
        ("VAEDecode", "ExactVAEDecodeFramewise", run),
        ("VAEEncode", "ExactVAEEncodeTiled", run | fit),
    ):
        wanted = through(seedvr2, LOADERS["core"], ours[job])
        own = coded(job)
        own["9"]["class_type"] = kind
        own["9"]["inputs"] |= more
        if job == "VAEEncode":
            own["9"]["inputs"]["images"] = own["9"]["inputs"].pop("pixels")
        got = through(seedvr2, LOADERS["core"], own)
        assert distance(got.reshape(wanted.shape), wanted) <= MOST
