"""Do core's nodes give core's untiled result through our engine, with a VAE of HunyuanVideo 1.5?

Random weights at full size by core's file names: its loader takes no other widths. Of a lone latent
frame, to which core's missing mask makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from host import server
from host.client import Client, Prompt
from host.workflow import distance
from hunyuan_files import authors_state
from safetensors.torch import save_file

pytestmark = pytest.mark.host

NAME = "hunyuanvideo15_vae_fp16.safetensors"
PICTURE = {"frames": 1, "height": 48, "width": 64, "seed": 0, "negate": False}
CLIP = {**PICTURE, "frames": 5}
TILED = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
MOST = 1e-4


def write_weights(path: Path) -> None:
    """The published network's widths with random weights from a fixed seed, in 16 bits."""
    torch.manual_seed(0)
    with torch.device("meta"):
        module = AutoencoderKLHunyuanVideo15()
    module = module.to(torch.float16).to_empty(device="cpu")
    for name, parameter in module.named_parameters():
        gamma = name.endswith("gamma")
        spread = 0.3 if gamma else parameter[0].numel() ** -0.5
        parameter.data.normal_(float(gamma), spread)
    save_file(authors_state(module), path)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a core with such a VAE in models/vae."""
    try:
        host = server.checkout()
    except server.HostMissing as error:
        pytest.skip(str(error))
    if not (host.folder / "comfy/ldm/hunyuan_video/vae_refiner.py").is_file():
        pytest.skip("needs a ComfyUI that knows HunyuanVideo 1.5")
    base = tmp_path_factory.mktemp("hunyuan")
    (base / "models/vae").mkdir(parents=True)
    write_weights(base / "models/vae" / NAME)
    with server.running(host, base) as client:
        yield client


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


def there_and_back(host: Client, loader: str, clip: dict[str, Any], tiled: bool) -> Any:
    """Latents and pictures of a clip through core's own nodes."""
    kind, tiles = ("Tiled", TILED) if tiled else ("", {})
    nodes: Prompt = {
        "8": node("TestClip", **clip),
        "9": node(f"VAEEncode{kind}", pixels=["8", 0], vae=["1", 0], **tiles),
        "10": node(f"VAEDecode{kind}", samples=["9", 0], vae=["1", 0], **tiles),
        "11": node("TestCapture", value=["9", 0], name="latents"),
        "12": node("TestCapture", value=["10", 0], name="pictures"),
    }
    host.succeed({**LOADERS[loader], **nodes})
    return host.captured("latents"), host.captured("pictures")


@pytest.mark.parametrize("tiled", [False, True], ids=["untiled", "tiled"])
def test_a_picture_through_cores_own_nodes_equals_core_untiled(core: Client, tiled: bool, capsys):
    wanted = there_and_back(core, "core", PICTURE, tiled=False)
    for loader in ("applied", "loaded"):
        got = there_and_back(core, loader, PICTURE, tiled)
        found = [distance(one, other) for one, other in zip(got, wanted, strict=True)]
        with capsys.disabled():
            print(f"\n{loader}, tiled {tiled}: {found}")  # noqa: T201
        assert max(found) <= MOST


def test_a_clip_is_the_same_through_both_of_our_nodes(core: Client):
    applied, loaded = (there_and_back(core, name, CLIP, False) for name in ("applied", "loaded"))
    for one, other in zip(applied, loaded, strict=True):
        assert one.shape == other.shape
        assert distance(one, other) <= MOST
    assert applied[0].shape == (1, 32, 2, 3, 4)
    assert applied[1].shape == (5, 48, 64, 3)
