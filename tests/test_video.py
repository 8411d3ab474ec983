"""Do frames keep colours, size, rate and number on their way through video files?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace
from PIL import Image

from vae_core.errors import VideoError
from vae_core.media.video import (
    Frame,
    Frames,
    Selection,
    frames_to_tensor,
    open_video,
    read_video,
    tensor_to_frames,
)
from vae_core.media.video_writing import VideoOptions, write_video

LIMITED, FULL = 1, 2
BT709, BT601 = int(Colorspace.ITU709), int(Colorspace.ITU601)
LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    BT601: (0.299, 0.114),
}  # of red and blue, from the standards


def flat_patches(height: int = 64, width: int = 96) -> Frame:
    """Six flat colours, each large enough to survive chroma subsampling."""
    colours = (
        (230, 40, 40),
        (40, 200, 60),
        (50, 60, 220),
        (235, 235, 235),
        (20, 20, 20),
        (200, 180, 40),
    )
    frame = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(colours):
        frame[:, index * width // 6 : (index + 1) * width // 6] = colour
    frame[: height // 4] = 128  # top and bottom differ, so that a turn shows
    return frame


def moving_clip(frames: int, height: int = 48, width: int = 64) -> Frames:
    """A clip whose every frame is another."""
    t, y, x = np.mgrid[0:frames, 0:height, 0:width]
    return (
        np.stack([x * 3 + t * 9, y * 4 + t * 5, 255 - x * 2 - y], -1).clip(0, 255).astype(np.uint8)
    )


def yuv_of(frame: Frame, matrix: int, colour_range: int) -> Frame:
    """[3, h, w] in 8-bit YUV, by the formulas of the standards."""
    red_weight, blue_weight = LUMA_WEIGHTS[matrix]
    red, green, blue = (frame[..., i] / 255 for i in range(3))
    y = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    u, v = (blue - y) / (2 * (1 - blue_weight)), (red - y) / (2 * (1 - red_weight))
    planes = [16 + 219 * y, 128 + 224 * u, 128 + 224 * v]
    if colour_range == FULL:
        planes = [255 * y, 128 + 255 * u, 128 + 255 * v]
    return np.stack(planes).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Recipe:
    """How `record` writes a file; rotation in degrees counterclockwise, then mirrored."""

    matrix: int = BT709
    colour_range: int = LIMITED
    tag_matrix: bool = True
    tag_range: bool = True
    rotation: float | None = None
    mirrored: bool = False


def record(path: Path, frame: Frame, recipe: Recipe, count: int = 2) -> None:
    """A lossless 4:4:4 file made from the formulas above, not by the code under test."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv444p"
        if path.suffix != ".mkv":
            stream.options = {"crf": "0"}
        if recipe.tag_matrix:
            stream.codec_context.colorspace = recipe.matrix
        if recipe.tag_range:
            stream.codec_context.color_range = recipe.colour_range
        if recipe.rotation is not None:
            stream.set_display_rotation(recipe.rotation, hflip=recipe.mirrored)
        for _ in range(count):
            yuv = yuv_of(frame, recipe.matrix, recipe.colour_range)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(yuv, format="yuv444p")))
        container.mux(stream.encode())


def mean_error(a: Frames, b: Frames) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


@pytest.mark.parametrize("matrix", [BT709, BT601])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_tagged_clips_come_back_with_their_colours(
    tmp_path: Path, matrix: int, colour_range: int, suffix: str
) -> None:
    path = tmp_path / f"clip{suffix}"
    record(path, flat_patches(), Recipe(matrix, colour_range))
    read = read_video(path).frames
    assert mean_error(read[0], flat_patches()) < 1


@pytest.mark.parametrize(("height", "matrix"), [(64, BT601), (720, BT709)])
def test_untagged_clips_are_read_by_the_matrix_of_their_height(
    tmp_path: Path, height: int, matrix: int
) -> None:
    frame = flat_patches(height)
    record(tmp_path / "clip.mkv", frame, Recipe(matrix, tag_matrix=False, tag_range=False), count=1)
    assert mean_error(read_video(tmp_path / "clip.mkv").frames[0], frame) < 1


@pytest.mark.parametrize(
    ("rotation", "mirrored"),
    [(0, False), (90, False), (-90, False), (180, False), (0, True), (90, True)],
)
def test_the_display_matrix_is_applied(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    frame = flat_patches()
    record(tmp_path / "clip.mp4", frame, Recipe(rotation=rotation, mirrored=mirrored))
    shown = np.rot90(frame, rotation // 90)
    shown = shown[:, ::-1] if mirrored else shown
    with open_video(tmp_path / "clip.mp4") as source:
        assert (source.info.height_px, source.info.width_px) == shown.shape[:2]
        assert mean_error(next(iter(source)), shown) < 1


@pytest.mark.parametrize("count", [1, 2, 17])
def test_written_clips_keep_count_rate_and_colours(tmp_path: Path, count: int) -> None:
    frames = np.stack([flat_patches(width=288)] * count)  # wide: edges lose colour in 4:2:0
    rate = Fraction(24000, 1001)
    write_video(tmp_path / "clip.mp4", frames, rate, VideoOptions(crf=4))
    clip = read_video(tmp_path / "clip.mp4")
    assert clip.frames.shape == frames.shape
    assert clip.info.fps == rate
    assert clip.info.frames == count
    assert mean_error(clip.frames, frames) < 2


def test_written_files_are_tagged_as_limited_bt709(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", moving_clip(2), Fraction(8))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        tags = (stream.colorspace, stream.color_range, stream.color_primaries, stream.color_trc)
        assert tags == (1, LIMITED, 1, 1)
        assert stream.pix_fmt == "yuv420p"


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63)])
def test_odd_sizes_are_kept(tmp_path: Path, height: int, width: int) -> None:
    frames = moving_clip(3, height, width)
    write_video(tmp_path / "clip.mp4", frames, Fraction(8), VideoOptions(crf=4))
    read = read_video(tmp_path / "clip.mp4").frames
    assert read.shape == frames.shape
    assert mean_error(read, frames) < 2


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", None), ("a.mkv", "ffv1"), ("a.mov", "mpeg4"), ("a.mp4", "libx265")],
)
def test_codecs_are_chosen_by_name_or_by_container(
    tmp_path: Path, name: str, codec: str | None
) -> None:
    write_video(tmp_path / name, moving_clip(3), Fraction(8), VideoOptions(codec=codec))
    assert mean_error(read_video(tmp_path / name).frames, moving_clip(3)) < 8


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "yuv422p"])
def test_other_pixel_formats_are_read(tmp_path: Path, pixel_format: str) -> None:
    options = VideoOptions(crf=4, pixel_format=pixel_format)
    write_video(tmp_path / "clip.mp4", moving_clip(2), Fraction(8), options)
    assert mean_error(read_video(tmp_path / "clip.mp4").frames, moving_clip(2)) < 3


@pytest.mark.parametrize(
    ("skip", "most", "left"), [(0, None, 9), (4, None, 5), (2, 3, 3), (7, 9, 2)]
)
def test_frames_are_chosen_by_count(tmp_path: Path, skip: int, most: int | None, left: int) -> None:
    write_video(tmp_path / "clip.mkv", moving_clip(9), Fraction(8), VideoOptions(codec="ffv1"))
    clip = read_video(tmp_path / "clip.mkv", Selection(skip, most))
    assert len(clip.frames) == left
    assert mean_error(clip.frames, moving_clip(9)[skip : skip + left]) < 3


def test_frames_are_decoded_only_when_they_are_asked_for(tmp_path: Path) -> None:
    frames = moving_clip(40)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    (tmp_path / "9.png").write_text("broken")
    with open_video(tmp_path) as source:
        taken = list(islice(source, 9))
        assert np.array_equal(taken, frames[:9])
        with pytest.raises(VideoError, match=r"9\.png is not a picture"):
            next(iter(source))


def with_index_first(path: Path) -> list[int]:
    """A file of 40 frames that can be cut anywhere; returns where each packet begins."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in moving_clip(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.pos]


def test_a_file_cut_between_two_frames_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    begins = with_index_first(path)
    path.write_bytes(path.read_bytes()[: begins[30]])
    clip = read_video(path)
    assert len(clip.frames) == 30
    assert "promises 40 frames, but only 30" in clip.notes[0]


def test_a_file_cut_within_its_first_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    begins = with_index_first(path)
    path.write_bytes(path.read_bytes()[: begins[0] + 20])
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_video(path)


def test_a_varying_rate_is_reported(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for moment, picture in zip((0, 40, 80, 300, 340), moving_clip(5), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_video(tmp_path / "clip.mp4")
    assert len(clip.frames) == 5
    assert "40 to 220 ms" in clip.notes[0]


def test_an_even_rate_is_not_reported(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", moving_clip(12), Fraction(30000, 1001))
    assert read_video(tmp_path / "clip.mkv").notes == ()


def test_pictures_are_clips_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(flat_patches()).save(tmp_path / "picture.png")
    clip = read_video(tmp_path / "picture.png")
    assert np.array_equal(clip.frames[0], flat_patches())
    assert len(clip.frames) == 1


def test_folders_of_pictures_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = moving_clip(11)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{index}.png")
    assert np.array_equal(read_video(tmp_path).frames, frames)


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_bad(folder: Path, kind: str) -> Path:
    """A path that cannot be read as a video, for a reason."""
    path = folder / "bad.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a video at all\n" * 50)
    elif kind == "sound":
        write_sound(path)
    elif kind == "cut":
        write_video(path, moving_clip(9), Fraction(8))
        path.write_bytes(path.read_bytes()[:300])
    elif kind == "picture":
        path = folder / "bad.png"
        path.write_text("no picture")
    elif kind == "folder":
        path = folder / "nothing"
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("text", "is not a video"),
        ("cut", "is not a video"),
        ("sound", "no video stream; it holds audio"),
        ("picture", "is not a picture"),
        ("folder", "holds no pictures"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(VideoError, match=sentence):
        read_video(make_bad(tmp_path, kind))


@pytest.mark.parametrize(
    ("skip", "most", "sentence"),
    [(3, None, "after the first 3"), (-1, None, "at least 0"), (0, 0, "at least 1")],
)
def test_a_selection_that_leaves_nothing_is_refused(
    tmp_path: Path, skip: int, most: int | None, sentence: str
) -> None:
    write_video(tmp_path / "clip.mp4", moving_clip(3), Fraction(8))
    with pytest.raises(VideoError, match=sentence):
        read_video(tmp_path / "clip.mp4", Selection(skip, most))


def test_nothing_is_left_when_writing_breaks_off(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Frame]:
        yield from moving_clip(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "clip.mp4", interrupted(), Fraction(8))
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_when_writing_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("old")
    with pytest.raises(VideoError, match="frames must be uint8"):
        write_video(path, [moving_clip(1)[0], moving_clip(1, 32, 32)[0]], Fraction(8))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "options", "sentence"),
    [
        ("clip.mp4", 0, 8, VideoOptions(), "no frame to write"),
        ("clip.mp4", 1, 0, VideoOptions(), "fps must be from 1/65535"),
        ("clip.mp4", 1, 8, VideoOptions(codec="nonsense"), "not a video encoder"),
        ("clip.mp4", 1, 8, VideoOptions(codec="aac"), "not a video encoder"),
        ("clip.webm", 1, 8, VideoOptions(codec="libx264"), "cannot write"),
        ("clip.mp4", 1, 8, VideoOptions(pixel_format="nonsense"), "cannot write"),
        ("nowhere/clip.mp4", 1, 8, VideoOptions(), "cannot write"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, name: str, frames: int, fps: int, options: VideoOptions, sentence: str
) -> None:
    with pytest.raises(VideoError, match=sentence):
        write_video(tmp_path / name, moving_clip(frames), Fraction(fps), options)
    assert list(tmp_path.iterdir()) == []


def test_tensors_and_frames_are_each_other_s_inverse() -> None:
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    video = frames_to_tensor(frames)
    assert video.shape == (1, 3, 1, 16, 16)
    assert (video.min(), video.max()) == (-1, 1)
    assert np.array_equal(tensor_to_frames(video), frames)


def test_values_outside_the_range_are_clamped() -> None:
    assert tensor_to_frames(torch.full((1, 3, 1, 8, 8), 1.7)).max() == 255
    assert tensor_to_frames(torch.full((1, 3, 1, 8, 8), -9.0)).max() == 0


@pytest.mark.parametrize(
    ("video", "sentence"),
    [
        (torch.zeros(2, 3, 1, 8, 8), "shape"),
        (torch.zeros(3, 1, 8, 8), "shape"),
        (torch.full((1, 3, 1, 8, 8), float("nan")), "NaN"),
    ],
)
def test_tensors_that_are_no_clip_are_refused(video: torch.Tensor, sentence: str) -> None:
    with pytest.raises(VideoError, match=sentence):
        tensor_to_frames(video)
