"""Do nodes hand on what they can answer for alone: finite values, and reports of what was run?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from pack import part, run

CORE = part("vae_core")
SHIPPED = "big_buck_bunny.mp4 (ships with this pack, for trying out)"


@pytest.fixture(scope="module")
def vae():
    return run("ExactVAELoader")[0]


@pytest.fixture
def overflowing(vae):
    """The VAE with weights so large that what they make is beyond float32."""
    (own,) = run("ExactVAELoader")
    with torch.no_grad():
        own.first_stage_model.encoder.conv_out.conv.weight.fill_(3e38)
        own.first_stage_model.decoder.conv_out.conv.weight.fill_(3e38)
    return own


def a_clip(frames: int = 5) -> torch.Tensor:
    return torch.rand(frames, 24, 32, 3, generator=torch.Generator().manual_seed(0))


def some_latents(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def core_calls(vae: Any) -> dict[str, Any]:
    """What core's nodes call on a VAE, and other packs on the network in it."""
    network = vae.first_stage_model
    video = some_latents(1, 3, 5, 24, 32)
    return {
        "encode": lambda: vae.encode(a_clip()),
        "encode_tiled": lambda: vae.encode_tiled(a_clip(), tile_x=32, tile_y=32),
        "decode": lambda: vae.decode(some_latents(1, 16, 2, 3, 4)),
        "decode_tiled": lambda: vae.decode_tiled(some_latents(1, 16, 2, 3, 4), tile_x=4),
        "network's encode": lambda: network.encode(video),
        "network's decode": lambda: network.decode(some_latents(1, 16, 2, 3, 4)),
    }


@pytest.mark.parametrize(
    ("name", "linked"),
    [
        ("ExactVAEEncodeTiled", {"images": a_clip()}),
        ("ExactVAEDecodeFramewise", {"samples": {"samples": some_latents(1, 16, 2, 3, 4)}}),
        ("ExactVAEDecodeVideo", {"samples": {"samples": some_latents(1, 16, 2, 3, 4)}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_hands_on_no_overflow(overflowing, name, linked):
    with pytest.raises(CORE.ResultError, match="gave NaN or infinity"):
        run(name, vae=overflowing, **linked)


def test_the_video_node_hands_on_no_overflow(overflowing):
    change = {"file": SHIPPED, "count": 5, "width": 32, "height": 24}
    with pytest.raises(CORE.ResultError, match="gave NaN or infinity"):
        run("ExactVAEEncodeVideo", vae=overflowing, change=change)


@pytest.mark.parametrize("call", core_calls(run("ExactVAELoader")[0]))
def test_cores_nodes_are_given_no_overflow(overflowing, call):
    with pytest.raises(CORE.ResultError, match="gave NaN or infinity"):
        core_calls(overflowing)[call]()


def a_file_of_unknown_length(path: Path, frames: int) -> Path:
    """A video whose container does not say how many frames it has."""
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for index in range(frames):
            pixels = np.full((24, 32, 3), index % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class AVideo:
    """What Load Video gives, as far as it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_stream_source(self) -> str:
        """Its file."""
        return str(self._path)


@pytest.mark.parametrize("frames", [1, 3, 17, 50])
def test_the_report_speaks_of_the_frames_that_were_encoded(vae, tmp_path, frames):
    video = AVideo(a_file_of_unknown_length(tmp_path / "clip.mkv", frames))
    latent, _, told = run("ExactVAEEncodeVideo", vae=vae, video=video)
    assert latent["samples"].shape[2] == (frames + 6) // 4
    counted = 4 * latent["samples"].shape[2] - 3
    assert re.search(rf"\b{counted}x24x32\b", told.splitlines()[0]), told


REPORTING = {
    "ExactVAEEncodeTiled": {"images": a_clip()},
    "ExactVAEDecodeFramewise": {"samples": {"samples": some_latents(1, 16, 2, 3, 4)}},
    "ExactVAEEncodeVideo": {"change": {"file": SHIPPED, "count": 5, "width": 32, "height": 24}},
    "ExactVAEDecodeVideo": {"samples": {"samples": some_latents(1, 16, 2, 3, 4)}},
}


def report_of(name: str, vae: Any) -> str:
    """What a node says of a run."""
    return next(one for one in told_by(run(name, vae=vae, **REPORTING[name])) if "peak" in one)


def told_by(result: Any) -> list[str]:
    """The texts among a node's outputs."""
    outputs = result["result"] if isinstance(result, dict) else result
    return [one for one in outputs if isinstance(one, str)]


@pytest.mark.parametrize("name", REPORTING)
def test_a_report_says_that_an_allowance_was_raised_while_it_ran(vae, name, monkeypatch):
    plans = []

    def raised_since(_device, _dtype, plan) -> list[str]:
        plans.append(plan)
        return ["libraries of the card took more memory than was allowed them"]

    monkeypatch.setattr(part("nodes.bridge.card"), "raised_since", raised_since)
    report = report_of(name, vae)
    assert "note: libraries of the card took more memory than was allowed them" in report
    assert plans[0].describe().splitlines()[0] in report


@pytest.mark.parametrize("name", REPORTING)
@pytest.mark.parametrize(
    ("narrow", "words"), [(True, "float32 (TF32 products) on cpu"), (False, "float32 on cpu")]
)
def test_a_report_says_what_was_computed_in(vae, name, narrow, words, monkeypatch):
    devices = part("vae_core.running.devices")
    monkeypatch.setattr(devices, "multiplies_in_tf32", lambda *_: narrow)
    assert f"VAE: {vae.video_vae.family.title}, {words}" in report_of(name, vae)
