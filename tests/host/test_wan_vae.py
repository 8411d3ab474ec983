"""Do core's nodes give the untiled network's result through our engine, with a Wan VAE?

Narrow networks with random weights by the authors' names, which core's own loader builds at any
width. Core's untiled result is the reference everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from authors_wan import WanVAE
from diffusers import AutoencoderKLWan
from host.client import Client, Prompt
from host.workflow import distance
from networks_wan import random_wan
from oracle_wan import weights_of
from safetensors import safe_open
from safetensors.torch import save_file

import vae_core

pytestmark = pytest.mark.host

NAME, ALPHA, FULL = "wan_narrow.safetensors", "wan_narrow_rgba.safetensors", "wan_full.safetensors"
CLIP = {"frames": 9, "height": 72, "width": 104, "seed": 0, "negate": False}
TILED = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
SMALL = {**TILED, "tile_size": 64, "overlap": 16, "temporal_size": 8, "temporal_overlap": 4}
VIDEO = {"width": 96, "height": 64, "length": 13, "batch_size": 1}
MOST = 1e-4


def write_weights(folder: Path) -> None:
    """Narrow networks with and without alpha, float32."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, channels in ((NAME, 3), (ALPHA, 4)):
        save_file(WanVAE(random_wan(16, channels)).state_dict(), folder / name)


@pytest.fixture(scope="module")
def wan(client: Client) -> Client:
    """A client of a host with Wan VAEs in models/vae."""
    write_weights(client.base / "models/vae")
    return client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


LOADERS = {
    "core": {"1": node("VAELoader", vae_name=NAME)},
    "applied": {
        "0": node("VAELoader", vae_name=NAME),
        "1": node(
            "ExactVAEApply", vae=["0", 0], chunk_size=8, norm_scope="chunk", memory_budget=0.0
        ),
    },
    "loaded": {"1": node("ExactVAELoader", vae_name=NAME, dtype="auto")},
}
OURS = ("applied", "loaded")


def through(host: Client, loader: Prompt, nodes: Prompt, last: str = "9") -> torch.Tensor:
    """What node `last` gives where the VAE comes from `loader`, whose last node is "1"."""
    capture = {"capture": node("TestCapture", value=[last, 0], name="wan")}
    host.succeed({**loader, **nodes, **capture})
    return host.captured("wan")


def compared(host: Client, ours: Prompt, theirs: Prompt, last: str = "9") -> dict[str, float]:
    """How far from core's untiled result (`theirs`) ours is, by where the VAE comes from."""
    wanted = through(host, LOADERS["core"], theirs, last)
    found = {}
    for name in OURS:
        got = through(host, LOADERS[name], ours, last)
        assert got.shape == wanted.shape
        found[name] = distance(got, wanted)
    return found


def check(found: dict[str, float], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the distances, and hold them against the bound."""
    with capsys.disabled():
        print(f"\n{what}: {found}")  # noqa: T201
    assert max(found.values()) <= MOST


def coded(kind: str, **widgets: Any) -> Prompt:
    """A clip through core's encoding, or latents through its decoding node."""
    if kind.startswith("VAEEncode"):
        start = node("TestClip", **CLIP)
        return {"8": start, "9": node(kind, pixels=["8", 0], vae=["1", 0], **widgets)}
    start = node("TestLatents", frames=4, rows=9, columns=13, seed=0)
    return {"8": start, "9": node(kind, samples=["8", 0], vae=["1", 0], **widgets)}


@pytest.mark.parametrize("job", ["VAEEncode", "VAEDecode"])
@pytest.mark.parametrize("tiles", [{}, TILED, SMALL], ids=["untiled", "defaults", "small tiles"])
def test_cores_own_nodes_equal_core_untiled(wan: Client, job: str, tiles: dict, capsys):
    kind = f"{job}Tiled" if tiles else job
    check(compared(wan, coded(kind, **tiles), coded(job)), f"{kind} {tiles}", capsys)


def conditioned(kind: str, key: str, **inputs: Any) -> Prompt:
    """What a node that encodes by itself hangs on its conditioning."""
    said = {"positive": ["5", 0], "negative": ["5", 0], "vae": ["1", 0], **VIDEO, **inputs}
    return {
        "5": node("TestConditioning"),
        "6": node("TestClip", **{**CLIP, "frames": 5}),
        "8": node(kind, **said),
        "9": node("TestHung", conditioning=["8", 0], key=key),
    }


def test_wan_image_to_video_equals_core_untiled(wan: Client, capsys):
    nodes = conditioned("WanImageToVideo", "concat_latent_image", start_image=["6", 0])
    check(compared(wan, nodes, nodes), "WanImageToVideo", capsys)


def test_wan_vace_to_video_equals_core_untiled(wan: Client, capsys):
    clips = {"control_video": ["6", 0], "reference_image": ["6", 0]}
    nodes = conditioned("WanVaceToVideo", "vace_frames", strength=1.0, **clips)
    check(compared(wan, nodes, nodes), "WanVaceToVideo", capsys)


def test_single_pictures_equal_core_untiled(wan: Client, capsys):
    nodes = coded("VAEEncode")
    nodes["8"]["inputs"]["frames"] = 1
    check(compared(wan, nodes, nodes), "VAEEncode of one picture", capsys)
    nodes = coded("VAEDecode")
    nodes["8"]["inputs"]["frames"] = 1
    check(compared(wan, nodes, nodes), "VAEDecode of one picture", capsys)


def test_alpha_goes_through_cores_nodes_where_core_knows_it(wan: Client, capsys):
    theirs = {"1": node("VAELoader", vae_name=ALPHA)}
    nodes = coded("VAEEncode")
    nodes["10"] = node("VAEDecode", samples=["9", 0], vae=["1", 0])
    capture = {"11": node("TestCapture", value=["10", 0], name="wan")}
    if wan.run({**theirs, **nodes, **capture}).end == "execution_error":
        pytest.skip("this ComfyUI has no VAE with alpha")
    for last in ("9", "10"):
        wanted = through(wan, theirs, nodes, last)
        loader = {"1": node("ExactVAELoader", vae_name=ALPHA, dtype="auto")}
        got = through(wan, loader, nodes, last)
        check({last: distance(got, wanted)}, f"alpha, {list(got.shape)}", capsys)


def test_our_nodes_take_the_vae_of_cores_loader_as_it_is(wan: Client):
    run = {"chunk_size": 8, "tile_size": 32, "overlap": 64, "tiling": "exact"}
    run |= {"norm_scope": "chunk", "memory_budget": 0.0}
    nodes = {
        "8": node("TestLatents", frames=4, rows=9, columns=13, seed=0),
        "9": node("ExactVAEDecodeFramewise", samples=["8", 0], vae=["1", 0], **run),
        "10": node("TestCapture", value=["9", 1], name="told"),
    }
    got = through(wan, LOADERS["core"], nodes)
    assert distance(got, through(wan, LOADERS["core"], coded("VAEDecode"))) <= MOST
    with safe_open(wan.base / "output/captured/told.safetensors", "pt") as file:
        assert "VAE: Wan 2.1 and Qwen-Image" in file.metadata()["text"]


def test_core_reserves_what_the_plan_of_the_full_network_takes(wan: Client, capsys):
    """81x720x1280 in the dtype that the host computes in."""
    with torch.device("meta"):
        network = AutoencoderKLWan()
    weights = {
        name: torch.zeros(tensor.shape, dtype=torch.bfloat16)
        for name, tensor in weights_of(network).items()
    }
    save_file(weights, wan.base / "models/vae" / FULL)
    size = {"frames": 81, "height": 720, "width": 1280}
    nodes = {"9": node("TestReserved", vae=["1", 0], **size)}
    capture = {"capture": node("TestCapture", value=["9", 0], name="reserved")}
    found = {}
    for name, loader in (
        ("core", node("VAELoader", vae_name=FULL)),
        ("ours", node("ExactVAELoader", vae_name=FULL, dtype="auto")),
    ):
        wan.succeed({"1": loader, **nodes, **capture})
        with safe_open(wan.base / "output/captured/reserved.safetensors", "pt") as file:
            found[name] = [int(number) for number in file.metadata()["text"].split()]
    engine = vae_core.from_module(network, torch.float32, "cpu")
    plans = [engine.plan_encode((1, 3, 81, 720, 1280)), engine.plan_decode((1, 16, 21, 90, 160))]
    with capsys.disabled():
        gib = {k: [round(number / 2**30, 2) for number in v] for k, v in found.items()}
        print(f"\nreserved for 81x720x1280, GiB: {gib}")  # noqa: T201
    for reserved, plan in zip(found["ours"], plans, strict=True):
        assert abs(reserved / plan.peak_bytes - 1.0) < 0.1
