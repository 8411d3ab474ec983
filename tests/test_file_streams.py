"""Is file to file the same as tensor to tensor, in constant memory, and does it end well?"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from networks import random_module
from PIL import Image
from test_video import BT601, BT709, FULL, LIMITED, Recipe, flat_patches, mean_error, record
from torch import Tensor

import vae_core
from vae_core import Extent, Settings, VideoError, VideoVAE, from_module
from vae_core.cli import main
from vae_core.geometry.fitting import Fitted
from vae_core.jobs.file_streams import decode_video, encode_video
from vae_core.media.audio import AudioTrack
from vae_core.media.video import (
    Frames,
    Selection,
    frames_to_tensor,
    open_video,
    read_video,
    tensor_to_frames,
)
from vae_core.media.video_writing import VideoOptions, open_writer, write_video

ROOT = Path(vae_core.__file__).parents[1]
LOSSLESS = VideoOptions(codec="ffv1", pixel_format="bgr0")


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return from_module(random_module())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("vae_core ")]


class IdentityStream(Iterator[Tensor]):
    """Runs of frames as they come."""

    def __init__(self, frames: Iterator[Tensor]) -> None:
        self._frames = frames
        self._shape: list[int] = []

    def __next__(self) -> Tensor:
        frame = next(self._frames)[:, :, None]
        self._shape = [1, *frame.shape[3:]]
        return frame

    @property
    def fitted(self) -> Fitted:
        return Fitted(Extent(*self._shape), Extent(*self._shape), ())

    def close(self) -> None:
        pass


class Identity:
    """Stands for a network that changes nothing."""

    def encode_stream(self, frames, settings, frame_count) -> IdentityStream:
        return IdentityStream(frames)

    def decode_stream(self, latents, settings) -> Iterator[Tensor]:
        return iter(latents.split(3, dim=2))


def through_identity(source: Path, target: Path, options: VideoOptions | None = None) -> None:
    chunks: list[Tensor] = []
    with open_video(source) as video:
        encode_video(Identity(), video, chunks.append, Settings())
    with open_writer(target, video.info.fps, options) as writer:
        decode_video(Identity(), torch.cat(chunks, 2), writer, None, Settings())


@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_survive_all_of_it(
    tmp_path: Path, matrix: int, colour_range: int, suffix: str
) -> None:
    frame = flat_patches(width=288)  # wide: edges lose colour in 4:2:0
    record(tmp_path / f"source{suffix}", frame, Recipe(matrix, colour_range), count=4)
    through_identity(tmp_path / f"source{suffix}", tmp_path / "result.mp4")
    result = read_video(tmp_path / "result.mp4").frames
    assert result.shape == (4, *frame.shape)
    assert mean_error(result, np.stack([frame] * 4)) <= 2


def moving_clip(frames: int, height: int = 32, width: int = 48) -> Frames:
    t, y, x = np.mgrid[0:frames, 0:height, 0:width]
    return (
        np.stack([x * 3 + t * 9, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255).astype(np.uint8)
    )


@pytest.mark.parametrize("frames", [1, 7, 22])
def test_file_to_file_equals_tensor_to_tensor(tmp_path: Path, vae: VideoVAE, frames: int) -> None:
    settings = Settings(chunk_frames=4)
    write_video(tmp_path / "in.mkv", moving_clip(frames), Fraction(24), LOSSLESS)
    chunks: list[Tensor] = []
    with open_video(tmp_path / "in.mkv") as video:
        fitted = encode_video(vae, video, chunks.append, settings)
    posterior = vae.encode(frames_to_tensor(moving_clip(frames)), settings)
    assert torch.equal(torch.cat(chunks, 2), posterior.moments)
    assert fitted == posterior.fitted
    with open_writer(tmp_path / "out.mkv", Fraction(24), LOSSLESS) as writer:
        size = decode_video(vae, posterior.mode(), writer, fitted.source, settings)
    expected = vae.decode(posterior.mode(), settings, trim=fitted.source)
    assert size == tuple(expected.shape[2:])
    assert np.array_equal(read_video(tmp_path / "out.mkv").frames, tensor_to_frames(expected))


def test_a_file_that_breaks_off_ends_everything(tmp_path: Path, vae: VideoVAE) -> None:
    for number, frame in enumerate(moving_clip(12)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (tmp_path / "9.png").write_text("broken")
    with open_video(tmp_path) as video, pytest.raises(VideoError, match=r"9\.png is not a picture"):
        encode_video(vae, video, lambda _: None, Settings(chunk_frames=4))


@pytest.mark.parametrize("where", ["take", "progress"])
def test_what_the_caller_raises_ends_everything(tmp_path: Path, vae: VideoVAE, where: str) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    write_video(tmp_path / "in.mkv", moving_clip(22), Fraction(24), LOSSLESS)
    settings = Settings(chunk_frames=4, on_progress=stop if where == "progress" else None)
    with open_video(tmp_path / "in.mkv") as video, pytest.raises(KeyboardInterrupt):
        encode_video(vae, video, stop, settings)


def test_a_writer_that_fails_ends_everything_and_leaves_nothing(
    tmp_path: Path, vae: VideoVAE
) -> None:
    latents = torch.full((1, 4, 3, 4, 4), 1e30)

    def decode() -> None:
        with open_writer(tmp_path / "out.mp4", Fraction(24)) as writer:
            decode_video(vae, latents * 1e8, writer, None, Settings())

    with pytest.raises((VideoError, vae_core.InputError)):
        decode()
    assert list(tmp_path.iterdir()) == []


def with_sound(path: Path, seconds: int = 4) -> Path:
    """25 frames a second, each of another grey, and a tone that begins after two seconds."""
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", 32000)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for number in range(25 * seconds):
            grey = np.full((64, 64, 3), 2 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        at = np.arange(32000 * seconds)
        tone = np.where(at < 64000, 0, 0.3 * np.sin(at * 0.1)).astype(np.float32)
        for first in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], "fltp", "mono")
            frame.rate, frame.pts = 32000, first
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
        container.mux(video.encode())
    return path


def heard(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", 32000)
        frames = [part for one in container.decode(audio=0) for part in resampler.resample(one)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.webm"])
def test_sound_is_carried_over_in_step(tmp_path: Path, name: str) -> None:
    source = with_sound(tmp_path / "in.mp4")
    with open_video(source, Selection(start_seconds=1.0, stop_seconds=3.0)) as video:
        track = AudioTrack(source, video.info.start_seconds)
        with open_writer(tmp_path / name, Fraction(25), audio=track) as writer:
            for frame in video:
                writer.add(frame)
    tone = heard(tmp_path / name)
    assert writer.frames == 50
    assert abs(len(tone) / 32000 - 2) < 0.1
    begins = int(np.argmax(np.abs(tone) > 0.1)) / 32000
    assert abs(begins - 1) < 0.06


def test_a_clip_without_sound_is_said_to_be_silent(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", moving_clip(3), Fraction(8))
    track = AudioTrack(tmp_path / "in.mp4")
    with open_writer(tmp_path / "out.mp4", Fraction(8), audio=track) as writer:
        writer.add(moving_clip(1)[0])
    assert writer.silent


@pytest.fixture(scope="module")
def small_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random VAE that is as narrow as can be, in a folder."""
    folder = tmp_path_factory.mktemp("weights") / "vae"
    random_module(channels=(8, 8, 8, 8), latent_channels=16).save_pretrained(folder)
    return folder


def in_format(path: Path, pixel_format: str) -> None:
    write_video(path, moving_clip(5), Fraction(24), VideoOptions(crf=4, pixel_format=pixel_format))


def turned(path: Path) -> None:
    record(path, flat_patches(48, 32), Recipe(rotation=90), count=5)


def in_pictures(path: Path) -> None:
    path.mkdir()
    for number, frame in enumerate(moving_clip(5)):
        Image.fromarray(frame).save(path / f"{number}.png")


HANDLED = {
    "one frame": (lambda path: write_video(path, moving_clip(1), Fraction(24)), 1),
    "10 bit": (lambda path: in_format(path, "yuv420p10le"), 5),
    "4:4:4": (lambda path: in_format(path, "yuv444p"), 5),
    "a phone's": (turned, 5),
    "pictures": (in_pictures, 5),
}


@pytest.mark.parametrize(("make", "frames"), HANDLED.values(), ids=HANDLED)
def test_odd_clips_go_there_and_back(
    tmp_path: Path, small_vae: Path, capsys, make, frames: int
) -> None:
    make(tmp_path / "in.mp4")
    vae = ("--vae", str(small_vae), "--quiet")
    assert main(["encode", str(tmp_path / "in.mp4"), "-o", str(tmp_path / "a.latent"), *vae]) == 0
    assert main(["decode", str(tmp_path / "a.latent"), "-o", str(tmp_path / "b.mp4"), *vae]) == 0
    assert capsys.readouterr().err == ""
    assert read_video(tmp_path / "b.mp4").frames.shape == (frames, 32, 48, 3)


FULL_DISK = """
import resource, sys
from vae_core.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_full_disk_is_said_in_a_sentence_and_nothing_stays(
    tmp_path: Path, small_vae: Path, command: str
) -> None:
    """A limit on file sizes stands in for a full disk."""
    (tmp_path / "out").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (33, 64, 64, 3)).astype(np.uint8)
    write_video(tmp_path / "in.mp4", noise, Fraction(24))
    vae = ("--vae", str(small_vae), "--quiet")
    source, result = tmp_path / "in.mp4", tmp_path / "out" / "a.latent"
    if command == "decode":
        source, result = tmp_path / "a.latent", tmp_path / "out" / "out.mp4"
        assert main(["encode", str(tmp_path / "in.mp4"), "-o", str(source), *vae]) == 0
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "2000", command, source, "-o", result, *vae],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "write" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
