"""Do core's nodes give core's untiled result through our engine, with VAEs of HunyuanVideo?

Random weights at full size by core's file names: its loader takes no other widths. Of a lone latent
frame, to which core's missing mask makes no difference, and of a clip by `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLHunyuanVideo15
from host import server
from host.client import Client, Prompt
from host.workflow import distance
from hunyuan_files import authors_state, core_state
from safetensors.torch import save_file

pytestmark = pytest.mark.host


@dataclass(frozen=True, slots=True)
class Published:
    """A VAE at full size: its file's name, class and names of weights, and what its latents are.

    needs: a file of a ComfyUI that knows it.
    """

    name: str
    kind: Callable[[], torch.nn.Module]
    state: Callable[[torch.nn.Module], dict[str, torch.Tensor]]
    channels: int
    px: int
    needs: str


VAES = {
    "1.5": Published(
        *(
            "hunyuanvideo15_vae_fp16.safetensors",
            AutoencoderKLHunyuanVideo15,
            authors_state,
            32,
            16,
        ),
        "comfy/ldm/hunyuan_video/vae_refiner.py",
    ),
    "1.0": Published(
        *("hunyuan_video_vae_bf16.safetensors", AutoencoderKLHunyuanVideo, core_state),
        *(16, 8, "comfy/ldm/hunyuan_video/model.py"),
    ),
}
PICTURE = {"frames": 1, "height": 48, "width": 64, "seed": 0, "negate": False}
CLIP = {**PICTURE, "frames": 5, "height": 32, "width": 48}
TILED = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
MOST = 1e-4
NUMBERS = 1_000_003
"""A prime: no two rows of a weight are alike."""


def write_weights(published: Published, folder: Path) -> None:
    """The published network's widths with random weights from a fixed seed, in 16 bits: the same
    numbers again and again, since to draw 1.2 billion takes longer than to run them.
    """
    numbers = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        module = published.kind()
    module = module.to(torch.float16).to_empty(device="cpu")
    start = 0
    for name, parameter in module.named_parameters():
        gamma = name.endswith("gamma") or ("norm" in name and name.endswith("weight"))
        spread = 0.3 if "norm" in name else parameter[0].numel() ** -0.5
        values = (numbers.roll(start) * spread + float(gamma)).to(torch.float16)
        flat, start = parameter.data.view(-1), start + parameter.numel()
        for part in flat.split(NUMBERS):
            part.copy_(values[: part.numel()])
    save_file(published.state(module), folder / published.name)


@pytest.fixture(scope="module", params=VAES.values(), ids=VAES)
def published(request: pytest.FixtureRequest) -> Published:
    return request.param


@pytest.fixture(scope="module")
def core(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a core with such a VAE in models/vae."""
    try:
        host = server.checkout()
    except server.HostMissing as error:
        pytest.skip(str(error))
    if not (host.folder / published.needs).is_file():
        pytest.skip("needs a ComfyUI that knows this HunyuanVideo")
    base = tmp_path_factory.mktemp("hunyuan")
    (base / "models/vae").mkdir(parents=True)
    write_weights(published, base / "models/vae")
    with server.running(host, base) as client:
        yield client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


def loaders(name: str) -> dict[str, Prompt]:
    """By what the VAE comes from the file of that name."""
    applied = node(
        "ExactVAEApply", vae=["0", 0], chunk_size=8, norm_scope="chunk", memory_budget=0.0
    )
    return {
        "core": {"1": node("VAELoader", vae_name=name)},
        "applied": {"0": node("VAELoader", vae_name=name), "1": applied},
        "loaded": {"1": node("ExactVAELoader", vae_name=name, dtype="auto")},
    }


def there_and_back(host: Client, loader: Prompt, clip: dict[str, Any], tiled: bool) -> Any:
    """Latents and pictures of a clip through core's own nodes."""
    kind, tiles = ("Tiled", TILED) if tiled else ("", {})
    nodes: Prompt = {
        "8": node("TestClip", **clip),
        "9": node(f"VAEEncode{kind}", pixels=["8", 0], vae=["1", 0], **tiles),
        "10": node(f"VAEDecode{kind}", samples=["9", 0], vae=["1", 0], **tiles),
        "11": node("TestCapture", value=["9", 0], name="latents"),
        "12": node("TestCapture", value=["10", 0], name="pictures"),
    }
    host.succeed({**loader, **nodes})
    return host.captured("latents"), host.captured("pictures")


@pytest.mark.parametrize("tiled", [False, True], ids=["untiled", "tiled"])
def test_a_picture_through_cores_own_nodes_equals_core_untiled(
    core: Client, published: Published, tiled: bool, capsys
):
    by = loaders(published.name)
    wanted = there_and_back(core, by["core"], PICTURE, tiled=False)
    for loader in ("applied", "loaded"):
        got = there_and_back(core, by[loader], PICTURE, tiled)
        found = [distance(one, other) for one, other in zip(got, wanted, strict=True)]
        with capsys.disabled():
            print(f"\n{loader}, tiled {tiled}: {found}")  # noqa: T201
        assert max(found) <= MOST


def test_a_clip_is_the_same_through_both_of_our_nodes(core: Client, published: Published):
    by = loaders(published.name)
    applied, loaded = (
        there_and_back(core, by[name], CLIP, False) for name in ("applied", "loaded")
    )
    for one, other in zip(applied, loaded, strict=True):
        assert one.shape == other.shape
        assert distance(one, other) <= MOST
    px, frames, height, width = published.px, CLIP["frames"], CLIP["height"], CLIP["width"]
    assert applied[0].shape == (1, published.channels, 2, height // px, width // px)
    assert applied[1].shape == (frames, height, width, 3)


def test_a_clip_as_core_has_it_equals_core_untiled(core: Client, published: Published):
    by = loaders(published.name)
    wanted = there_and_back(core, by["core"], CLIP, tiled=False)
    as_is = {**by["applied"]["1"]["inputs"], "reference": "core-as-is"}
    loader = {**by["applied"], "1": node("ExactVAEApply", **as_is)}
    got = there_and_back(core, loader, CLIP, tiled=True)
    assert max(distance(one, other) for one, other in zip(got, wanted, strict=True)) <= MOST
