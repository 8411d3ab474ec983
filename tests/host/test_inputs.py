"""Is what core's own nodes and people's folders give taken for what it is?"""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
import torch
from host.client import Client, Prompt
from host.test_behaviour import FIT, RUN, TINY, node

import vae_core

pytestmark = pytest.mark.host

CLIP = {"frames": 6, "height": 27, "width": 33, "seed": 1, "negate": False}
WHOLE = {"skip": 0, "count": 0, "stride": 1, "target_fps": 0.0, "width": 0, "height": 0}
WHOLE |= {"framing": "cover"}


def encoded(seed: int = 1) -> Prompt:
    """A clip that encoding pads, as latents at node 3."""
    return {
        "1": node("ExactVAELoader", vae_name=TINY, dtype="fp32"),
        "2": node("TestClip", **{**CLIP, "seed": seed}),
        "3": node("ExactVAEEncodeTiled", images=["2", 0], vae=["1", 0], **RUN, **FIT),
    }


def decoded(client: Client, prompt: Prompt, latents: str) -> torch.Tensor:
    """The pictures of what a node gives."""
    prompt["8"] = node("ExactVAEDecodeFramewise", samples=[latents, 0], vae=["1", 0], **RUN)
    prompt["9"] = node("TestCapture", value=["8", 0], name="pictures")
    client.succeed(prompt)
    return client.captured("pictures")


def test_a_video_of_create_video_is_encoded_as_its_pictures_whatever_their_size(client: Client):
    prompt = encoded()
    prompt["4"] = node("CreateVideo", images=["2", 0], fps=16.0)
    whole = {"file": "the connected video", "video": ["4", 0], **WHOLE}
    prompt["5"] = node("ExactVAEEncodeVideo", vae=["1", 0], **whole, **RUN, **FIT)
    prompt["6"] = node("TestCapture", value=["3", 0], name="from_pictures")
    prompt["7"] = node("TestCapture", value=["5", 0], name="from_video")
    client.succeed(prompt)
    expected, got = client.captured("from_pictures"), client.captured("from_video")
    # A video has 8 bits a colour.
    assert (got - expected).abs().max() < 0.02 * expected.std()


@pytest.mark.parametrize(
    ("kind", "inputs", "size"),
    [
        ("LatentFlip", {"flip_method": "y-axis: horizontally"}, (9, 32, 40, 3)),
        ("LatentRotate", {"rotation": "180 degrees"}, (9, 32, 40, 3)),
        ("RepeatLatentBatch", {"amount": 2}, (12, 27, 33, 3)),
        ("LatentMultiply", {"multiplier": 0.9}, (6, 27, 33, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_padding_is_taken_off_behind_a_node_of_core_only_where_it_still_lies(
    client: Client, kind: str, inputs: dict[str, Any], size: tuple[int, ...]
):
    prompt = encoded()
    prompt["4"] = node(kind, samples=["3", 0], **inputs)
    assert decoded(client, prompt, "4").shape == size


def test_two_clips_in_a_batch_of_core_keep_every_frame(client: Client):
    prompt = encoded()
    prompt |= {f"1{key}": value for key, value in encoded(seed=2).items()}
    prompt["13"]["inputs"] |= {"images": ["12", 0]}
    prompt["4"] = node("LatentBatch", samples1=["3", 0], samples2=["13", 0])
    assert decoded(client, prompt, "4").shape == (18, 32, 40, 3)


def test_a_linked_video_is_listed_and_encoded(client: Client, tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    shutil.copy(vae_core.sample_clip_path(), far / "clip.mp4")
    folder = client.base / "input"
    os.symlink(far / "clip.mp4", folder / "linked.mp4")
    os.symlink(far, folder / "videos", target_is_directory=True)
    files = client.object_info()["ExactVAEEncodeVideo"]["input"]["required"]["file"][0]
    for name in ("linked.mp4", "videos/clip.mp4"):
        assert name in files
        prompt = encoded()
        small = {**WHOLE, "count": 1, "width": 32, "height": 24}
        prompt["5"] = node("ExactVAEEncodeVideo", vae=["1", 0], file=name, **small, **RUN, **FIT)
        prompt["7"] = node("TestCapture", value=["5", 0], name="linked")
        client.succeed(prompt)
        assert client.captured("linked").shape == (1, 16, 1, 3, 4)
