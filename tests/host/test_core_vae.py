"""What do core's own CogVideoX nodes get wrong, and does it come right through our engine?

Random weights at full size: core's loader takes no other widths. Only on a core that knows this
network itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from host import server
from host.client import Client, Prompt
from safetensors.torch import save_file

pytestmark = pytest.mark.host

NAME = "cogvideox_vae_random_bf16.safetensors"
CLIP = {"frames": 17, "height": 64, "width": 64, "seed": 0}
TILED = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}


def write_weights(path: Path) -> None:
    """The published network's widths with random weights from a fixed seed, in bfloat16."""
    torch.manual_seed(0)
    module = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(128, 256, 256, 512),
        layers_per_block=3,
        latent_channels=16,
    )
    save_file(module.to(torch.bfloat16).state_dict(), path)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """A client of a core with a full-size VAE in models/vae."""
    try:
        host = server.checkout()
    except server.HostMissing as error:
        pytest.skip(str(error))
    if not host.knows_cogvideox:
        pytest.skip("needs a ComfyUI of 0.21 or newer in COMFYUI_PATH")
    base = tmp_path_factory.mktemp("core")
    (base / "models/vae").mkdir(parents=True)
    write_weights(base / "models/vae" / NAME)
    with server.running(host, base) as client:
        yield client


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": kind, "inputs": inputs}


def with_vae(applied: bool) -> tuple[Prompt, list[Any]]:
    """Core's loader, ours behind it or not; and the wire to take the VAE from."""
    prompt = {"1": node("VAELoader", vae_name=NAME)}
    if not applied:
        return prompt, ["1", 0]
    settings = {"chunk_size": 8, "norm_scope": "chunk", "memory_budget": 0.0}
    prompt["2"] = node("ExactVAEApply", vae=["1", 0], **settings)
    return prompt, ["2", 0]


def encoded(core: Client, applied: bool, negate: bool) -> torch.Tensor:
    """Latents [1, 16, 5, 8, 8] of the clip through core's VAE Encode."""
    prompt, vae = with_vae(applied)
    prompt["3"] = node("TestClip", **CLIP, negate=negate)
    prompt["4"] = node("VAEEncode", pixels=["3", 0], vae=vae)
    prompt["5"] = node("TestCapture", value=["4", 0], name="latents")
    core.succeed(prompt)
    return core.captured("latents")


def effect_of_the_first_frame(core: Client, applied: bool) -> list[float]:
    """The largest change in each latent frame when sample frame 0 is turned over."""
    change = encoded(core, applied, negate=True) - encoded(core, applied, negate=False)
    return change.abs().amax(dim=(0, 1, 3, 4)).tolist()


def test_the_first_frame_reaches_later_latents_through_ours_alone(core: Client, capsys):
    ours = effect_of_the_first_frame(core, applied=True)
    theirs = effect_of_the_first_frame(core, applied=False)
    with capsys.disabled():
        print(f"\nchange of each latent frame: ours {ours}, core's {theirs}")  # noqa: T201
    assert min(ours[1:]) > 0.01
    assert theirs[0] > 0.01
    assert max(theirs[1:]) == 0.0, "this core keeps the causal cache: FACTS and README need a word"


def decoded_tiled(core: Client, applied: bool) -> Any:
    """Core's VAEDecodeTiled at its defaults, on two latent frames."""
    prompt, vae = with_vae(applied)
    prompt["3"] = node("TestLatents", frames=2, rows=8, columns=8, seed=0)
    prompt["4"] = node("VAEDecodeTiled", samples=["3", 0], vae=vae, **TILED)
    prompt["5"] = node("TestCapture", value=["4", 0], name="pictures")
    return core.run(prompt)


def test_cores_tiled_decode_takes_an_even_number_of_latents_through_ours_alone(core: Client):
    done = decoded_tiled(core, applied=True)
    assert done.end == "execution_success", done.told
    assert core.captured("pictures").shape == (5, 64, 64, 3)
    done = decoded_tiled(core, applied=False)
    assert done.end == "execution_error", "this core decodes even counts: FACTS need a word"
    assert "must match the existing size" in done.told["exception_message"]


def test_our_nodes_take_the_vae_of_cores_loader_as_it_is(core: Client):
    prompt, _ = with_vae(applied=False)
    run = {"chunk_size": 8, "tile_size": 0, "overlap": 64, "tiling": "exact"}
    run |= {"norm_scope": "chunk", "memory_budget": 0.0}
    fit = {"frame_policy": "pad", "size_policy": "pad", "posterior": "mode", "sample_seed": 0}
    prompt["3"] = node("TestClip", **{**CLIP, "frames": 9}, negate=False)
    prompt["4"] = node("ExactVAEEncodeTiled", images=["3", 0], vae=["1", 0], **run, **fit)
    prompt["5"] = node("TestCapture", value=["4", 0], name="direct")
    applied, vae = with_vae(applied=True)
    applied["3"], applied["5"] = prompt["3"], node("TestCapture", value=["4", 0], name="core")
    applied["4"] = node("VAEEncode", pixels=["3", 0], vae=vae)
    core.succeed(prompt)
    core.succeed(applied)
    assert torch.equal(core.captured("direct"), core.captured("core"))
