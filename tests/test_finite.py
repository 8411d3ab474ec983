"""Is an overflow said, with its frame and a remedy, wherever results come out?"""

from __future__ import annotations

import pytest
import torch
from networks import random_module
from torch import Tensor, nn

from vae_core import ResultError, Settings, VideoVAE, from_module
from vae_core.running.finite import check_result, first_not_finite

SMALL = Settings(chunk_frames=4, tile_px=64)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return from_module(random_module(channels=(8, 8, 8, 8)))


def overflowing(vae: VideoVAE, part: str) -> VideoVAE:
    """The same network, whose last convolution gives more than a number holds."""
    module = random_module(channels=(8, 8, 8, 8))
    with torch.no_grad():
        getattr(module, part).conv_out.conv.weight.fill_(3e38)
    return from_module(module)


def latents_with(frame: int, value: float) -> Tensor:
    latents = torch.randn(1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    latents[:, :, frame] = value
    return latents


@pytest.mark.parametrize("tiling", ["exact", "off", "blend"])
@pytest.mark.parametrize("frame", [0, 4])
def test_a_decoded_overflow_is_refused_with_its_frame(
    vae: VideoVAE, frame: int, tiling: str
) -> None:
    settings = Settings(chunk_frames=4, tiling=tiling)
    first = 0 if frame == 0 else 4 * frame - 3
    with pytest.raises(ResultError, match=rf"in frame {first} of the result.*float32 holds"):
        vae.decode(latents_with(frame, 1e38), settings)


def test_a_streamed_overflow_comes_after_the_frames_before_it(vae: VideoVAE) -> None:
    stream = vae.decode_stream(latents_with(4, 1e38), SMALL)
    came: list[int] = []
    with pytest.raises(ResultError, match="in frame 13"):
        came.extend(frames.shape[2] for frames in stream)
    assert sum(came) == 13


@pytest.mark.parametrize("how", ["tensor", "stream", "tensor in a stream"])
def test_an_encoded_overflow_is_refused(vae: VideoVAE, how: str) -> None:
    broken = overflowing(vae, "encoder")
    video = torch.ones(1, 3, 5, 32, 32)

    def encode() -> None:
        if how == "tensor":
            broken.encode(video, SMALL)
        else:
            list(broken.encode_stream(video if how != "stream" else iter(video.split(1, 2)), SMALL))

    with pytest.raises(ResultError, match="gave NaN or infinity, first in frame 0"):
        encode()


def test_float16_is_told_what_to_use_instead(vae: VideoVAE) -> None:
    half = from_module(vae.module, torch.float16)
    with pytest.raises(ResultError, match=r"float16 holds\. Use bfloat16 or float32"):
        half.decode(torch.full((1, 4, 1, 4, 4), 6e4), SMALL)


def test_what_a_dtype_holds_is_no_overflow() -> None:
    largest = torch.full((1, 3, 2, 2, 2), torch.finfo(torch.float16).max, dtype=torch.float16)
    check_result(largest, "decode", torch.float16, 0)
    assert first_not_finite(largest) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_frame_that_is_not_finite_is_found(dtype: torch.dtype, value: float) -> None:
    frames = torch.zeros(2, 3, 4, 5, 6, dtype=dtype)
    frames[1, 2, 2, 4, 5] = frames[0, 0, 3, 0, 0] = value
    assert first_not_finite(frames) == 2


def test_a_tensor_without_values_is_taken_as_it_is() -> None:
    assert first_not_finite(torch.empty(1, 1, 1, 1, 1, device="meta")) is None
    assert first_not_finite(nn.Parameter(torch.full((1, 1, 1, 1, 1), float("nan")))) == 0
