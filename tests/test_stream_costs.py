"""What do streams cost: is memory the same for every length, and the engine's speed kept?

Slow; the figures are shown with --log-cli-level=INFO.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_module

import vae_core
from vae_core import Settings
from vae_core.jobs.file_streams import decode_video, encode_video
from vae_core.media.video import frames_to_tensor, open_video, read_video
from vae_core.media.video_writing import VideoOptions, open_writer

ROOT = Path(vae_core.__file__).parents[1]
LOG = logging.getLogger(__name__)

# Prints the peak of resident memory of encoding and of decoding the clip in the folder argv[1], in
# KiB, with the VAE argv[2], or where that is `pooling`, with a network that only averages.
MEMORY = """
import sys, time
from pathlib import Path
import torch
from torch.nn.functional import avg_pool3d, interpolate
torch.set_num_threads(1)
from vae_core import Extent, from_module
from vae_core.cli import main
from vae_core.families.family import COGVIDEOX
from vae_core.geometry.fitting import Fitted
from vae_core.geometry.ratios import Ratios
from vae_core.streaming.frame_feed import FrameFeed
from vae_core.jobs import commands, options
from vae_core.jobs.peak_memory import peak_bytes, start_peak
from vae_core.geometry.region import Interval

folder, name = Path(sys.argv[1]), sys.argv[2]

class Averages:
    # Moments and frames of the sizes that CogVideoX makes, chunk by chunk.
    scaling_factor = loaded = latent_statistics = None
    family, ratios = COGVIDEOX, Ratios(8, 4)

    def encode_stream(self, frames, settings, frame_count):
        feed, sizes = FrameFeed(frames, 3), None
        while count := min(feed.hold(9 if feed.given == 0 else 8), 9 if feed.given == 0 else 8):
            video = feed.take(count)
            size = Extent(feed.given, *video.shape[3:])
            first = feed.given == count
            rest = video[:, :, first:]
            parts = [avg_pool3d(video[:, :, :1], (1, 8, 8))] if first else []
            parts += [avg_pool3d(rest, (4, 8, 8))] if rest.shape[2] >= 4 else []
            time.sleep(0.1)  # reading is ahead, writing behind: queues are full
            if parts:
                yield torch.cat(parts, 2).repeat(1, 11, 1, 1, 1)[:, :32]
        self.fitted = Fitted(size, size, ())

    def decode_stream(self, latents, settings):
        for start in range(0, latents.shape[2], 2):
            part = latents.take(Interval(start, min(start + 2, latents.shape[2])))[:, :3]
            yield interpolate(part, scale_factor=(4, 8, 8))

class Stream:
    def __init__(self, vae, chunks):
        self.vae, self.chunks = vae, chunks
    def __iter__(self):
        return self.chunks
    def close(self):
        pass
    @property
    def fitted(self):
        return self.vae.fitted

if name == "pooling":
    averages = Averages()
    stream = averages.encode_stream
    averages.encode_stream = lambda *given: Stream(averages, stream(*given))
    commands.load_for = lambda args: averages
    network = ()
else:
    network = ("--vae", name)
device = torch.device("cpu")
clip, latents, result = (str(folder / file) for file in ("in.mp4", "a.latent", "out.mp4"))
for argv in (("encode", clip, "-o", latents), ("decode", latents, "-o", result)):
    start_peak(device)
    assert main([*argv, *network, "--quiet"]) == 0
    print("peak", peak_bytes(device) // 1024)
"""


def write_long(path: Path, seconds: int, height: int, width: int) -> None:
    y, x = np.mgrid[0:height, 0:width]
    with open_writer(path, Fraction(24), VideoOptions(quality="small")) as writer:
        for number in range(24 * seconds):
            ramp = np.stack([x + number, y + 2 * number, x + y], -1)
            writer.add((ramp % 256).astype(np.uint8))


def peaks(folder: Path, vae: object, seconds: int, size: tuple[int, int]) -> list[int]:
    """Peak resident KiB of encoding and of decoding, in a process of its own."""
    folder.mkdir()
    write_long(folder / "in.mp4", seconds, *size)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(folder), str(vae)],
        # Freed memory goes back at once, so that the peak is of what is held.
        env=os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")]


@pytest.fixture(scope="module")
def small_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VAE that is as narrow as can be, in a folder."""
    folder = tmp_path_factory.mktemp("weights") / "vae"
    random_module(channels=(8, 8, 8, 8), latent_channels=16).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for peaks that can be set back")
@pytest.mark.parametrize(("network", "size"), [("pooling", (272, 640)), ("small", (64, 96))])
def test_memory_is_the_same_for_a_minute_as_for_ten_seconds(
    tmp_path: Path, small_vae: Path, network: str, size: tuple[int, int]
) -> None:
    """All of it but the network at the size that was asked about, and the network at a small one:
    what it holds depends on the chunk alone.
    """
    vae = small_vae if network == "small" else network
    short = peaks(tmp_path / "short", vae, 10, size)
    long = peaks(tmp_path / "long", vae, 60, size)
    for kind, a, b in zip(("encode", "decode"), short, long, strict=True):
        LOG.info("%s: %d KiB for 10 s, %d KiB for 60 s, %+.2f %%", kind, a, b, 100 * (b / a - 1))
        assert b / a - 1 < 0.03


@pytest.mark.slow
def test_the_pipeline_is_as_fast_as_the_engine(tmp_path: Path) -> None:
    """The best of three runs of either, on the same frames."""
    engine = vae_core.load(vae_core.tiny_vae_path(), dtype=torch.float32)
    write_long(tmp_path / "in.mp4", 2, 128, 192)
    video = frames_to_tensor(read_video(tmp_path / "in.mp4").frames)
    latents = engine.encode(video).mode()

    def bare() -> None:
        for _ in engine.encode_stream(video):
            pass
        for _ in engine.decode_stream(latents):
            pass

    def piped() -> None:
        with open_video(tmp_path / "in.mp4") as source:
            encode_video(engine, source, lambda _: None, Settings())
        with open_writer(tmp_path / "out.mp4", Fraction(24)) as writer:
            decode_video(engine, latents, writer, None, Settings())

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    rounds = [(seconds(bare), seconds(piped)) for _ in range(3)]
    alone, together = (min(times) for times in zip(*rounds, strict=True))
    LOG.info("engine %.2f s, pipeline %.2f s", alone, together)
    assert alone / together >= 0.95
