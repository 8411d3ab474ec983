"""Is a VIDEO that was made of pictures encoded as those pictures, whatever their size?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pack import part, run

from vae_core.media.video import open_video

components = part("nodes.bridge.components")


class HostVideo(ABC):
    """The host's class of videos: a file by default is what the video is compressed into."""

    @abstractmethod
    def get_components(self) -> Any:
        """Pictures, sound and rate."""

    def get_stream_source(self) -> Any:
        """Fails as the host's does: x264 takes no odd side."""
        raise AssertionError("the host compressed the pictures")


class Pictures(HostVideo):
    """What Create Video gives."""

    def __init__(self, images: torch.Tensor, fps: Fraction) -> None:
        self._parts = SimpleNamespace(images=images, frame_rate=fps, audio=None)

    def get_components(self) -> Any:
        """All that there is."""
        return self._parts


class Lost(HostVideo):
    """A video whose file is gone."""

    def get_components(self) -> Any:
        """Nothing to give."""

    def get_stream_source(self) -> Any:
        """The file is looked for."""
        raise FileNotFoundError("no such file: a.mp4")


@pytest.fixture(scope="module")
def vae():
    return run("ExactVAELoader")[0]


def pictures(frames: int, height: int, width: int) -> torch.Tensor:
    """An IMAGE [t, h, w, 3] of whole 255ths in [0, 1]."""
    generator = torch.Generator().manual_seed(height * width)
    whole = torch.randint(0, 256, (frames, height, width, 3), generator=generator)
    return whole.float() / 255.0


@pytest.mark.parametrize("size", [(1, 17, 23), (5, 33, 47), (6, 16, 1), (9, 40, 56)], ids=str)
@pytest.mark.parametrize("fps", [Fraction(8), Fraction(30000, 1001)], ids=str)
def test_pictures_come_back_as_they_were(size, fps):
    images = pictures(*size)
    with open_video(components.lossless(images, fps)) as video:
        frames = np.stack(list(video))
        assert video.info.fps == fps
    assert np.array_equal(frames, (images * 255).round().byte().numpy())


@pytest.mark.parametrize("size", [(5, 33, 47), (6, 40, 56)], ids=str)
def test_a_video_of_pictures_is_encoded_as_its_pictures(vae, size):
    images = pictures(*size)
    latent, fps, _ = run("ExactVAEEncodeVideo", vae=vae, video=Pictures(images, Fraction(16)))
    expected, _ = run("ExactVAEEncodeTiled", images=images, vae=vae)
    torch.testing.assert_close(latent["samples"], expected["samples"], rtol=0, atol=2e-5)
    assert fps == 16.0
    change = {"skip": 1, "count": 2, "width": 24, "height": 16}
    latent, _, told = run(
        "ExactVAEEncodeVideo", vae=vae, video=Pictures(images, Fraction(16)), change=change
    )
    assert latent["samples"].shape[2:] == (2, 2, 3)
    assert "from 2 to 5" in told


def test_a_video_that_cannot_be_read_is_refused_in_a_sentence(vae):
    with pytest.raises(part("vae_core").VideoError, match="the connected video cannot be read"):
        run("ExactVAEEncodeVideo", vae=vae, video=Lost())
    broken = Pictures(torch.full((2, 16, 16, 3), float("nan")), Fraction(8))
    with pytest.raises(part("vae_core").InputError, match="NaN"):
        run("ExactVAEEncodeVideo", vae=vae, video=broken)
