"""Are the frames that come out of a file those that were asked for, at the size asked for?"""

from __future__ import annotations

import gc
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from vae_core.errors import VideoError
from vae_core.media.framing import Framing, Resize
from vae_core.media.video import Frame, Selection, open_video, read_video
from vae_core.media.video_writing import VideoOptions, open_writer, write_video

LOSSLESS = VideoOptions(codec="ffv1", pixel_format="bgr0")


def numbered(count: int) -> list[Frame]:
    """Frames whose grey is their number times 2."""
    return [np.full((48, 64, 3), 2 * number, np.uint8) for number in range(count)]


def numbers(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 2) for frame in frames]


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 25 frames a second."""
    path = tmp_path_factory.mktemp("clips") / "even.mkv"
    write_video(path, numbered(100), Fraction(25), LOSSLESS)
    return path


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames at 0, 100, 200, 600 and 700 milliseconds, with key frames throughout."""
    path = tmp_path_factory.mktemp("clips") / "uneven.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for moment, picture in zip((0, 1, 2, 6, 7), numbered(5), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = moment, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


CHOICES = {
    "all": (Selection(), list(range(100)), 25),
    "stride": (Selection(stride=3), list(range(0, 100, 3)), Fraction(25, 3)),
    "skip, stride, max": (Selection(5, 4, 10), [5, 15, 25, 35], Fraction(5, 2)),
    "window": (Selection(start_seconds=1, stop_seconds=1.2), [25, 26, 27, 28, 29], 25),
    "late window": (Selection(start_seconds=3.8), [95, 96, 97, 98, 99], 25),
    "half the rate": (Selection(fps=12.5, max_frames=4), [0, 2, 4, 6], Fraction(25, 2)),
    "twice the rate": (Selection(fps=50, max_frames=5), [0, 0, 1, 1, 2], 50),
    "window, rate, skip": (
        Selection(2, 3, 1, 5, 2.0, 3.0),
        [60, 65, 70],
        5,
    ),
}


@pytest.mark.parametrize(("chosen", "expected", "fps"), CHOICES.values(), ids=CHOICES)
def test_frames_are_chosen_by_time_rate_and_number(
    even: Path, chosen: Selection, expected: list[int], fps: Fraction
) -> None:
    clip = read_video(even, chosen)
    assert numbers(clip.frames) == expected
    assert clip.info.fps == fps
    assert clip.info.frames in (None, len(expected))
    assert clip.notes == ()


def test_a_varying_rate_is_resampled_as_a_player_would_show_it(uneven: Path) -> None:
    assert numbers(read_video(uneven).frames) == [0, 1, 2, 3, 4]
    assert "Ask for a rate" in read_video(uneven).notes[0]
    clip = read_video(uneven, Selection(fps=10))
    assert numbers(clip.frames) == [0, 1, 2, 2, 2, 2, 3, 4]
    assert clip.notes == ()
    assert numbers(read_video(uneven, Selection(fps=5)).frames) == [0, 2, 2, 3]


def test_a_rate_asked_of_pictures_is_theirs(tmp_path: Path) -> None:
    for number, frame in enumerate(numbered(6)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    clip = read_video(tmp_path, Selection(fps=24, stride=2))
    assert numbers(clip.frames) == [0, 2, 4]
    assert clip.info.fps == 12


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"fps": 0}, "fps must be more than 0"),
        ({"start_seconds": -1}, "start_seconds must be at least 0"),
        ({"start_seconds": 2, "stop_seconds": 2}, "after start_seconds"),
        ({"start_seconds": float("nan")}, "start_seconds must be at least 0"),
        ({"start_seconds": float("inf")}, "start_seconds must be at most 1000000000"),
        ({"fps": 1e-9}, "fps must be from 0.001 to 1000000; got 1e-09"),
        ({"fps": Fraction(1, 10**9)}, "fps must be from 0.001 to 1000000; got 1e-09"),
        ({"fps": float("inf")}, "fps must be from 0.001 to 1000000; got inf"),
        ({"fps": float("nan")}, "fps must be more than 0"),
    ],
)
def test_selections_that_leave_nothing_are_refused(values: dict, sentence: str) -> None:
    with pytest.raises(VideoError, match=sentence):
        Selection(**values)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Selection(stop_seconds=float("inf"), max_frames=10**30), list(range(100))),
        (Selection(stride=10**30), [0]),
        (Selection(fps=1000, max_frames=81, stride=40), list(range(81))),
        (Selection(fps=Fraction(1, 3)), [0, 75]),
    ],
)
def test_numbers_of_every_size_mean_what_they_say(
    even: Path, chosen: Selection, expected: list[int]
) -> None:
    assert numbers(read_video(even, chosen).frames) == expected


def test_leaving_out_more_than_there_is_is_refused(even: Path) -> None:
    with pytest.raises(VideoError, match="no frame to give after the first 10000000000"):
        read_video(even, Selection(skip_frames=10**30))


def test_a_window_beyond_the_end_is_refused(even: Path) -> None:
    with pytest.raises(VideoError, match="no frame to give from 9 seconds on"):
        read_video(even, Selection(start_seconds=9))


def test_a_file_like_object_is_read_as_a_file(even: Path) -> None:
    data = io.BytesIO(even.read_bytes())
    data.seek(77)
    for _ in range(2):
        clip = read_video(data, Selection(start_seconds=3.8))
        assert numbers(clip.frames) == [95, 96, 97, 98, 99]
    assert clip.info.path == Path("the video in memory")


def test_closed_files_are_not_read_ahead(even: Path) -> None:
    with open_video(even) as video:
        assert numbers(np.stack([next(iter(video))])) == [0]
        assert video.given == 1


def halves(height: int = 40, width: int = 80) -> Frame:
    """Left black, right white, the upper edge grey."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, width // 2 :] = 255
    frame[:4] = 128
    return frame


def test_stretching_keeps_everything() -> None:
    resized = Resize(20, 20, Framing.STRETCH).of(halves())
    assert resized.shape == (20, 20, 3)
    assert resized[10, 2].max() < 3
    assert resized[10, 17].min() > 252
    assert abs(int(resized[0, 10, 0]) - 128) < 16


def test_covering_crops_the_centre() -> None:
    resized = Resize(20, 20, Framing.COVER).of(halves())
    assert resized.shape == (20, 20, 3)
    assert resized[10, 2].max() < 3
    assert resized[10, 17].min() > 252


def test_containing_puts_black_around() -> None:
    white = np.full((40, 80, 3), 255, np.uint8)
    resized = Resize(40, 40, Framing.CONTAIN).of(white)
    assert resized.shape == (40, 40, 3)
    assert resized[:10].max() == resized[30:].max() == 0
    assert resized[10:30].min() == 255


def test_cropping_scales_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (41, 60, 3)).astype(np.uint8)
    assert np.array_equal(Resize(21, 30, Framing.CROP).of(noise), noise[10:31, 15:45])
    with pytest.raises(VideoError, match="cannot crop 64x64 from 41x60"):
        Resize(64, 64, "crop").of(noise)


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [(48, 64), (17, 33), (48, 30)])
def test_every_policy_gives_the_size_asked_for(
    even: Path, framing: Framing, size: tuple[int, int]
) -> None:
    clip = read_video(even, Selection(max_frames=2), Resize(*size, framing))
    assert clip.frames.shape == (2, *size, 3)
    assert (clip.info.height_px, clip.info.width_px) == size


@pytest.mark.parametrize(
    ("size", "framing", "sentence"),
    [((0, 9), "cover", "at least 1x1"), ((9, 9), "zoom", "framing must be stretch or")],
)
def test_sizes_that_make_no_sense_are_refused(
    size: tuple[int, int], framing: str, sentence: str
) -> None:
    with pytest.raises(VideoError, match=sentence):
        Resize(*size, framing)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_metadata_go_into_the_file(tmp_path: Path, suffix: str) -> None:
    said = {"prompt": '{"1": {"class_type": "A"}}', "workflow": '{"nodes": []}'}
    path = tmp_path / f"clip{suffix}"
    with open_writer(path, Fraction(8), VideoOptions(metadata=said)) as writer:
        writer.add(numbered(1)[0])
    with av.open(str(path)) as container:
        found = {name.lower(): value for name, value in container.metadata.items()}
    assert said.items() <= found.items()


@pytest.mark.parametrize("codec", ["h264", "h265", "vp9", "av1", "prores"])
def test_better_quality_is_larger_and_nearer(tmp_path: Path, codec: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    noise = (noise // 4 + 90).astype(np.uint8)
    found = []
    for quality in ("small", "best"):
        path = tmp_path / f"{quality}.{'mov' if codec == 'prores' else 'mkv'}"
        write_video(path, noise, Fraction(8), VideoOptions(codec=codec, quality=quality))
        apart = np.abs(read_video(path).frames.astype(int) - noise).mean()
        found.append((path.stat().st_size, -apart))
    if codec != "prores":  # it knows profiles, not constant quality
        assert found[0] < found[1]
        assert found[0][1] < found[1][1]


@pytest.mark.parametrize("width", [15, 16, 17, 18, 33, 49, 65])
def test_prores_has_its_colours_at_every_width(tmp_path: Path, width: int) -> None:
    """Its encoder leaves colours out of a last block that is one pixel wide."""
    red = np.full((2, 32, width, 3), (200, 60, 90), np.uint8)
    write_video(tmp_path / "clip.mov", red, Fraction(8), VideoOptions(codec="prores"))
    found = read_video(tmp_path / "clip.mov").frames
    assert found.shape == red.shape
    assert np.abs(found.astype(int) - red).max() < 8


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(VideoError, match="quality must be small or good"):
        VideoOptions(quality="superb")


def test_frames_that_have_been_read_are_freed_at_once(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", numbered(30), Fraction(8))
    gc.collect()
    gc.disable()
    try:
        with open_video(tmp_path / "clip.mp4") as source:
            for _ in source:
                pass
        left = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    assert left <= 2
