"""Do frames and sound come from the right moment, whatever a container says about time?"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from recordings import Recording, grey, joined, numbers, record, tones

from vae_core.errors import VideoError
from vae_core.media.audio import AudioTrack, check_sound
from vae_core.media.video import Selection, open_video, read_video
from vae_core.media.video_writing import VideoOptions, open_writer, write_video

CONTAINERS = {
    "ts": Recording(),
    "one key frame.ts": Recording(key_every=1000),
    "h265.ts": Recording(codec="libx265"),
    "mpeg2.ts": Recording(codec="mpeg2video"),
    "mpg": Recording(codec="mpeg2video"),
    "flv": Recording(),
    "h264": Recording(),
    "h265": Recording(codec="libx265"),
    "avi": Recording(codec="mpeg4"),
    "mp4": Recording(),
    "short.mp4": Recording(codec="libx265", key_every=10),
    "mkv": Recording(key_every=10),
    "webm": Recording(codec="libvpx-vp9"),
    "fragments.mp4": Recording(options={"movflags": "frag_keyframe+empty_moov"}),
}
PIPED = {"mkv": "matroska", "webm": "webm"}


def check_windows(path: Path) -> None:
    """Every window gives the frames that reading the whole clip gives there."""
    whole = numbers(read_video(path).frames)
    assert len(whole) == 100
    for begin in (24, 25, 49, 51, 75, 98):
        window = Selection(start_seconds=begin / 25, stop_seconds=(begin + 2) / 25)
        clip = read_video(path, window)
        assert numbers(clip.frames) == whole[begin : begin + 2]
        assert abs(clip.info.start_seconds - Fraction(begin, 25)) <= Fraction(1, 1000)


@pytest.mark.parametrize(("name", "what"), CONTAINERS.items(), ids=CONTAINERS)
def test_a_window_holds_the_frames_of_its_time_in_every_container(
    tmp_path: Path, name: str, what: Recording
) -> None:
    check_windows(record(tmp_path / f"clip.{name}", what))


@pytest.mark.parametrize("suffix", PIPED)
def test_a_window_is_right_where_a_file_was_piped_and_has_no_index(
    tmp_path: Path, suffix: str
) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = tmp_path / f"clip.{suffix}"
    check_windows(record(path, Recording(codec=codec), piped_as=PIPED[suffix]))


def test_a_window_is_right_where_an_index_calls_every_frame_a_key_frame(tmp_path: Path) -> None:
    path = record(tmp_path / "clip.mp4", Recording(codec="mpeg4"))
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    check_windows(path)


JUMPS = {
    "back": (0, 0),
    "far back": (100, 3),
    "ahead": (0, 600),
}


@pytest.mark.parametrize("name", ["clip.ts", "clip.mpg"])
@pytest.mark.parametrize(("first", "second"), JUMPS.values(), ids=JUMPS)
def test_joined_recordings_are_one_clip_at_every_rate(
    tmp_path: Path, name: str, first: float, second: float
) -> None:
    codec = "libx264" if name == "clip.ts" else "mpeg2video"
    part = Recording(64, codec=codec, start=first)
    path = joined(tmp_path / name, part, replace(part, first=60, start=second))
    clip = read_video(path)
    assert len(clip.frames) == 128
    assert len(clip.notes) == 1
    assert "time jumps in one place" in clip.notes[0]
    assert np.array_equal(read_video(path, Selection(fps=25)).frames, clip.frames)
    assert len(read_video(path, Selection(fps=5)).frames) == 26
    late = read_video(path, Selection(start_seconds=3.0, max_frames=4))
    assert np.array_equal(late.frames, clip.frames[75:79])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("fps", [1, 8, 60])
def test_an_even_clip_has_no_jumps(tmp_path: Path, suffix: str, fps: int) -> None:
    path = tmp_path / f"clip{suffix}"
    write_video(path, [grey(n) for n in range(30)], Fraction(fps), VideoOptions(crf=4))
    clip = read_video(path)
    assert clip.notes == ()
    late = read_video(path, Selection(start_seconds=20 / fps))
    assert np.array_equal(late.frames, clip.frames[20:])


def test_a_picture_that_really_stands_still_is_repeated_and_said(tmp_path: Path) -> None:
    path = tmp_path / "slides.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for seconds, number in ((0, 0), (1, 1), (31, 2)):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = seconds * 10, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_video(path, Selection(fps=1))
    assert numbers(clip.frames) == [0, *[1] * 30, 2]
    assert "stands still for 30 seconds" in clip.notes[0]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("fps", [5000, 65535])
def test_fast_clips_keep_every_frame(tmp_path: Path, suffix: str, codec: str, fps: int) -> None:
    path = tmp_path / f"clip{suffix}"
    write_video(path, [grey(n) for n in range(13)], Fraction(fps), VideoOptions(codec=codec))
    with av.open(str(path)) as container:  # other programs find them too
        assert sum(1 for _ in container.decode(video=0)) == 13
    clip = read_video(path)
    assert len(clip.frames) == 13
    assert clip.info.fps == fps
    assert numbers(read_video(path, Selection(start_seconds=3 / fps, max_frames=2)).frames) == [
        3,
        4,
    ]


def test_fast_clips_of_other_programs_keep_every_frame(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(13):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = read_video(tmp_path / "clip.mp4")
    assert len(clip.frames) == clip.info.frames == 13


def test_the_length_that_a_header_promises_is_no_plan(tmp_path: Path) -> None:
    """FFmpeg says 2^30 frames where it cannot go back to write how many there were."""
    path = record(tmp_path / "clip.avi", Recording(20, codec="mpeg4"), piped_as="avi")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 2**30
    with open_video(path) as video:
        assert video.info.frames is None
        assert len(list(video)) == 20
        assert video.notes == ()


SOURCES = {
    "in.ts": Recording(sound_late=0.0),
    "later.ts": Recording(sound_late=0.0, start=3600.0),
    "sound late.ts": Recording(sound_late=0.5),
    "picture late.ts": Recording(sound_late=0.0, picture_late=0.5),
    "in.mpg": Recording(codec="mpeg2video", sound_late=0.0, sound_codec="mp2"),
    "in.mp4": Recording(sound_late=0.0),
    "sound late.mp4": Recording(sound_late=0.5),
    "picture late.mp4": Recording(sound_late=0.0, picture_late=0.5),
    "later.mkv": Recording(sound_late=0.0, start=3600.0),
    "picture late.mkv": Recording(sound_late=0.0, picture_late=0.5),
}


def carried(source: Path, start: float, result: Path) -> Path:
    """The window of `source` from `start` on, with its sound."""
    with open_video(source, Selection(start_seconds=start)) as video:
        track = AudioTrack(source, video.info.start_seconds)
        with open_writer(result, Fraction(25), audio=track) as writer:
            for frame in video:
                writer.add(frame)
    return result


@pytest.mark.parametrize(("start", "suffix"), [(0.0, ".mp4"), (0.0, ".webm"), (1.01, ".mkv")])
@pytest.mark.parametrize(("name", "what"), SOURCES.items(), ids=SOURCES)
def test_sound_is_heard_with_the_picture_that_it_belongs_to(
    tmp_path: Path, name: str, what: Recording, start: float, suffix: str
) -> None:
    """The tone begins two seconds after the file; the first picture that is kept is time zero."""
    source = record(tmp_path / name, what)
    kept_from = np.ceil(start * 25) / 25 + what.picture_late
    found = tones(carried(source, start, tmp_path / f"out{suffix}"))
    assert found == pytest.approx([2.0 - kept_from], abs=0.03)


def test_sound_stays_with_its_pictures_where_recordings_were_joined(tmp_path: Path) -> None:
    """Each part's tone begins one second into it."""
    part = Recording(50, sound_late=0.0, tone=1.0)
    source = joined(tmp_path / "in.ts", part, replace(part, frames=75, start=900.0, tone=2.0))
    assert tones(carried(source, 0.0, tmp_path / "out.mp4")) == pytest.approx([1, 4], abs=0.05)


def wav(path: Path, layout: str = "stereo") -> Path:
    """Sound alone, a tone after two seconds; such a file may not say which speakers it is for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=32000, layout=layout)
        at = np.arange(32000 * 4)
        wave = np.where(at < 64000, 0, 9000 * np.sin(at * 0.1)).astype(np.int16)
        channels = len(av.AudioLayout(layout).channels)
        frame = av.AudioFrame.from_ndarray(wave.repeat(channels)[None], "s16", layout)
        frame.rate = 32000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("layout", ["mono", "stereo", "quad", "5.1"])
def test_sound_that_a_container_refuses_is_encoded_for_it(
    tmp_path: Path, suffix: str, layout: str
) -> None:
    track = AudioTrack(wav(tmp_path / "in.wav", layout), 1)
    with open_writer(tmp_path / f"out{suffix}", Fraction(25), audio=track) as writer:
        for number in range(75):
            writer.add(grey(number))
    assert tones(tmp_path / f"out{suffix}") == pytest.approx([1], abs=0.03)


def test_sound_that_cannot_be_read_is_refused_before_any_frame(tmp_path: Path) -> None:
    (tmp_path / "in.wav").write_bytes(b"no sound" * 99)
    track = AudioTrack(tmp_path / "in.wav")
    with pytest.raises(VideoError, match="no sound can be read from"):
        check_sound(track, ".mp4")
    with (
        pytest.raises(VideoError, match="no sound can be read"),
        open_writer(tmp_path / "out.mp4", Fraction(25), audio=track),
    ):
        pytest.fail("a frame could be written")


def with_cover(path: Path, *, video: bool) -> Path:
    """A red cover first, then a clip or sound."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        if path.suffix != ".mov":
            cover.disposition = av.stream.Disposition.attached_pic
        codec, rate = ("libx264", 25) if video else ("libmp3lame", 32000)
        codec, rate = ("libx264", 25) if video else ("libmp3lame", 32000)
        other = container.add_stream(codec, rate=rate, options={"crf": "4"} if video else {})
        red = np.full((48, 64, 3), (200, 0, 0), np.uint8)
        if video:
            other.height, other.width, other.pix_fmt = 48, 64, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(cover.encode())
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            if not video:
                silence = np.zeros((1, 1024), np.float32)
                frame = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
                frame.rate = 32000
            container.mux(other.encode(frame))
        container.mux(other.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_cover_is_not_taken_for_the_video(tmp_path: Path, suffix: str) -> None:
    clip = read_video(with_cover(tmp_path / f"clip{suffix}", video=True))
    assert numbers(clip.frames) == pytest.approx(range(20), abs=1)
    assert clip.info.fps == 25


def test_a_sound_file_with_a_cover_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no video stream; it holds audio, a cover picture"):
        read_video(with_cover(tmp_path / "song.mp3", video=False))


def test_the_stream_that_was_taken_of_several_is_said(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (32, 64), strict=True):
            stream.height, stream.width, stream.pix_fmt = 48, width, "bgr0"
        streams[1].disposition = av.stream.Disposition.default
        for number in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(grey(number, 48, stream.width), format="rgb24")
                container.mux(stream.encode(frame.reformat(format="bgr0")))
        for stream in streams:
            container.mux(stream.encode())
    clip = read_video(path)
    assert clip.frames.shape == (5, 48, 64, 3)
    assert clip.notes == (
        "the file holds 2 video streams; stream 1 (64x48) was taken, as a player does.",
    )


@pytest.mark.parametrize("name", ["12:30.mp4", "100%.mp4", "-x.mp4", "http:.mp4"])
def test_a_file_s_name_is_never_taken_for_a_protocol(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("plain.mp4", [grey(n) for n in range(3)], Fraction(8))
    try:
        Path("plain.mp4").rename(name)
    except OSError:
        pytest.skip("this system has no such names")
    assert len(read_video(name).frames) == 3


def test_a_name_that_is_not_utf8_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "n\udcff.mkv"
    frames = [grey(n) for n in range(30)]
    write_video(tmp_path / "plain.mkv", frames, Fraction(8), VideoOptions(crf=4))
    try:
        (tmp_path / "plain.mkv").rename(path)
    except (OSError, UnicodeError):
        pytest.skip("this system has no such names")
    late = read_video(path, Selection(start_seconds=3))
    assert numbers(late.frames) == pytest.approx(range(24, 30), abs=1)


@pytest.mark.parametrize(("path", "sentence"), [("x" * 300, "cannot be read"), ("\0", "cannot be")])
def test_a_name_that_no_file_can_have_is_refused_in_a_sentence(path: str, sentence: str) -> None:
    with pytest.raises(VideoError, match=sentence):
        read_video(path)


def test_pictures_have_the_clock_of_the_file_too(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(grey(number)).save(tmp_path / f"{number}.png")
    with open_video(tmp_path, Selection(skip_frames=2)) as video:
        assert video.info.start_seconds == Fraction(2, 8)
