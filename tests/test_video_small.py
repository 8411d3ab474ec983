"""Are short and small clips written every time, whatever the encoder thinks of them?"""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vae_core.media.video import read_video
from vae_core.media.video_writing import VideoOptions, open_writer

WRITE_SMALL = """
import sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from vae_core.media.video import read_video
from vae_core.media.video_writing import VideoOptions, check_options, write_video
folder, codec = Path(sys.argv[1]), sys.argv[2]
path, options = folder / "clip.mp4", VideoOptions(codec=codec, quality="best")
for count, height, width in [(1, 32, 48), (1, 256, 256), (2, 96, 96), (3, 64, 64), (12, 32, 48)]:
    frames = np.full((count, height, width, 3), (100, 140, 60), np.uint8)
    for again in range(12):
        check_options(path, options, (height, width))
        write_video(path, frames, Fraction(24), options)
    found = read_video(path).frames
    assert found.shape == frames.shape, found.shape
    assert np.abs(found.astype(int) - frames).mean() < 4
"""


@pytest.mark.parametrize("codec", ["h264", "h265", "vp9"])
def test_short_and_small_clips_are_written_every_time(tmp_path: Path, codec: str) -> None:
    """x265 can break the memory of its process, hence one of its own."""
    argv = [sys.executable, "-P", "-c", WRITE_SMALL, str(tmp_path), codec]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]
    assert "[info]" not in done.stderr


def test_frames_may_be_overwritten_as_soon_as_they_are_taken(tmp_path: Path) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    options = VideoOptions(codec="h265")
    with open_writer(tmp_path / "clip.mp4", Fraction(24), options) as writer:
        for level in (20, 90, 160, 230):
            frame[:] = level
            writer.add(frame)
    levels = read_video(tmp_path / "clip.mp4").frames.mean(axis=(1, 2, 3))
    assert np.abs(levels - [20, 90, 160, 230]).max() < 4
