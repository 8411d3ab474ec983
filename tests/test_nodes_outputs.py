"""Do nodes hand on what they can answer for alone: finite values, known latents, true reports?"""

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
images, origin = part("nodes.bridge.images"), part("nodes.bridge.origin")
SQUARE = (1, 16, 16, 2, 2)


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
    with pytest.raises(CORE.VaeCoreError, match="NaN or infinit"):
        run(name, vae=overflowing, **linked)


def test_the_video_node_hands_on_no_overflow(overflowing):
    change = {"file": "big_buck_bunny.mp4 (ships with this pack, for trying out)", "count": 5}
    change |= {"width": 32, "height": 24}
    with pytest.raises(CORE.VaeCoreError, match="NaN or infinit"):
        run("ExactVAEEncodeVideo", vae=overflowing, change=change)


@pytest.mark.parametrize("call", core_calls(run("ExactVAELoader")[0]))
def test_cores_nodes_are_given_no_overflow(overflowing, call):
    with pytest.raises(CORE.VaeCoreError, match="NaN or infinit"):
        core_calls(overflowing)[call]()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_bad_value_is_found_whatever_it_is(bad, dtype):
    made = torch.zeros(1, 3, 2, 4, 4, dtype=dtype)
    assert images.finite(made, "pictures") is made
    made[0, 1, 1, 2, 3] = bad
    with pytest.raises(CORE.VaeCoreError, match=f"computing in {str(dtype)[6:]}"):
        images.finite(made, "pictures")


def test_sixteen_frames_of_sixteen_channels_are_asked_about(vae):
    latent = {"samples": some_latents(*SQUARE)}
    for name in ("ExactVAEDecodeFramewise", "ExactVAEDecodeVideo"):
        with pytest.raises(CORE.InputError, match="Choose whose they are in 'latents_of'"):
            run(name, samples=latent, vae=vae)


def test_what_is_chosen_is_done(vae):
    core = {"samples": some_latents(*SQUARE)}
    expected = vae.decode(core["samples"])[0]
    theirs = {"samples": core["samples"].transpose(1, 2) * 0.7}
    for latent, whose in ((core, "core"), (theirs, "CogVideoXWrapper")):
        pictures, told = run(
            "ExactVAEDecodeFramewise", samples=latent, vae=vae, change={"latents_of": whose}
        )
        torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-4)
        assert ("axes exchanged" in told) == (whose != "core")


def test_what_the_latents_say_themselves_is_believed(vae):
    core = {"samples": some_latents(*SQUARE)}
    expected = vae.decode(core["samples"])[0]
    theirs = {"samples": core["samples"].transpose(1, 2) * 0.7}
    (turned,) = run("ExactVAELatentConvert", samples=theirs)
    (back,) = run(
        "ExactVAELatentConvert", samples=core, change={"direction": "core to CogVideoXWrapper"}
    )
    for latent in ({**theirs, "additional_frames": 0}, turned, back):
        pictures, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
        torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-4)


def test_our_own_latents_of_sixteen_frames_need_no_word(vae):
    latent, _ = run("ExactVAEEncodeTiled", images=a_clip(61)[:, :16, :16], vae=vae)
    assert latent["samples"].shape[:3] == (1, 16, 16)
    pictures, _ = run("ExactVAEDecodeFramewise", samples=latent, vae=vae)
    assert torch.equal(pictures, vae.decode(latent["samples"])[0])


@pytest.mark.parametrize(
    ("shape", "whose", "told"),
    [
        ((1, 3, 16, 2, 2), "core", "look like latents of CogVideoXWrapper"),
        ((1, 3, 16, 2, 2), "auto", "look like latents of CogVideoXWrapper"),
        ((1, 16, 3, 2, 2), "CogVideoXWrapper", "look like latents of core"),
        ((1, 4, 3, 2, 2), "CogVideoXWrapper", "belong to another model"),
        ((1, 4, 3, 2, 2), "core", "belong to another model"),
    ],
)
def test_a_choice_that_the_shape_contradicts_is_refused(vae, shape, whose, told):
    with pytest.raises(CORE.InputError, match=told):
        run(
            "ExactVAEDecodeFramewise",
            samples={"samples": some_latents(*shape)},
            vae=vae,
            change={"latents_of": whose},
        )


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
    assert latent[origin.ORIGIN]["source"][0] == frames
    counted = 4 * latent["samples"].shape[2] - 3
    assert re.search(rf"\b{counted}x24x32\b", told.splitlines()[0]), told
