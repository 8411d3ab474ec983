"""Does a stream of frames give the numbers of the whole clip, whatever its length and pieces?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice, product

import pytest
import torch
from networks import random_latents, random_module, random_video
from torch import Tensor

from vae_core import Extent, InputError, Progress, Settings, VideoVAE, from_module
from vae_core.geometry.region import Interval

FULL = 4


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return from_module(random_module())


def in_runs(video: Tensor, run: int) -> Iterator[Tensor]:
    """Runs of `run` frames; frames of four dimensions where it is 0."""
    if run == 0:
        yield from video.unbind(2)
    else:
        yield from video.split(run, dim=2)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize(
    ("frames", "run"),
    [*product([1, 2, 4, 5, 6, 8, 9, 12, 13, 14], [0, 3]), (5, 1), (9, 1), (5, 99), (14, 7)],
)
def test_a_stream_gives_the_bits_of_the_whole_clip(
    vae: VideoVAE, frames: int, fit: str, run: int
) -> None:
    settings = Settings(chunk_frames=FULL, frame_fit=fit)
    video = random_video(frames, 12, 16)
    whole = vae.encode(video, settings)
    stream = vae.encode_stream(in_runs(video, run), settings)
    moments = list(stream)
    assert torch.equal(torch.cat(moments, 2), whole.moments)
    assert stream.fitted == whole.fitted
    assert max(part.shape[2] for part in moments) <= 2


def test_a_tensor_streams_as_it_encodes(vae: VideoVAE) -> None:
    video = random_video(11, 16, 16)
    stream = vae.encode_stream(video, Settings(chunk_frames=FULL))
    whole = vae.encode(video, Settings(chunk_frames=FULL))
    assert torch.equal(torch.cat(list(stream), 2), whole.moments)
    assert stream.fitted == whole.fitted
    assert whole.fitted.network.t == 13


@pytest.mark.parametrize(
    "settings",
    [
        Settings(chunk_frames=FULL, norm_scope="clip"),
        Settings(chunk_frames=FULL, norm_scope="clip", placement="mmap"),
        Settings(chunk_frames=FULL, tiling="blend", tile_px=32, overlap_px=16),
        Settings(chunk_frames=FULL, layout="diffusers"),
    ],
    ids=["clip", "clip on disk", "blend", "diffusers"],
)
def test_what_needs_the_whole_clip_collects_it(vae: VideoVAE, settings: Settings) -> None:
    video = random_video(10, 40, 40)
    stream = vae.encode_stream(in_runs(video, 3), settings)
    assert torch.equal(torch.cat(list(stream), 2), vae.encode(video, settings).moments)
    assert stream.fitted == vae.encode(video, settings).fitted


def test_frames_are_pulled_no_further_than_the_next_chunk(vae: VideoVAE) -> None:
    pulled = []
    frame = random_video(1, 16, 16)[:, :, 0]

    def endless() -> Iterator[Tensor]:
        for number in count():
            pulled.append(number)
            yield frame

    stream = vae.encode_stream(endless(), Settings(chunk_frames=FULL))
    assert pulled == []
    for chunks, parts in enumerate(islice(stream, 5), start=1):
        assert parts.shape == (1, 8, 2 if chunks == 1 else 1, 2, 2)
        assert len(pulled) <= 1 + FULL * chunks + 1
    stream.close()


def reports(vae: VideoVAE, frames: int, frame_count: int | None) -> list[Progress]:
    seen: list[Progress] = []
    settings = Settings(chunk_frames=FULL, on_progress=seen.append)
    list(vae.encode_stream(in_runs(random_video(frames, 16, 16), 1), settings, frame_count))
    return seen


def test_progress_has_totals_exactly_where_the_length_is_known(vae: VideoVAE) -> None:
    unknown, known, short = reports(vae, 13, None), reports(vae, 13, 13), reports(vae, 5, None)
    assert {(one.chunks, one.total_operations) for one in unknown} == {(0, 0)}
    assert {one.chunks for one in known} == {3}
    assert {one.chunks for one in short} == {1}
    for seen in (known, short):
        assert seen[-1].done_operations == seen[-1].total_operations
    assert [one.done_operations for one in unknown] == [one.done_operations for one in known]


@pytest.mark.parametrize("said", [1, 5, 9, 50])
def test_a_wrong_count_changes_nothing(vae: VideoVAE, said: int) -> None:
    video, settings = random_video(13, 16, 16), Settings(chunk_frames=FULL)
    moments = list(vae.encode_stream(in_runs(video, 1), settings, said))
    assert torch.equal(torch.cat(moments, 2), vae.encode(video, settings).moments)


def test_a_policy_that_refuses_does_so_as_soon_as_it_can(vae: VideoVAE) -> None:
    settings = Settings(chunk_frames=FULL, frame_fit="error")
    video = random_video(11, 16, 16)
    with pytest.raises(InputError, match=r"4k\+1; got 11"):
        next(vae.encode_stream(in_runs(video, 1), settings, 11))
    stream = vae.encode_stream(in_runs(video, 1), settings)
    assert len(list(islice(stream, 2))) == 2
    with pytest.raises(InputError, match=r"4k\+1; got 11"):
        next(stream)


BAD = {
    "nothing": ([], "at least one sample frame"),
    "no tensor": ([[1.0]], "item at frame 0 is list"),
    "three dimensions": ([torch.zeros(3, 16, 16)], "sample frames"),
    "channels": ([torch.zeros(1, 4, 16, 16)], "3 channels"),
    "integers": ([torch.zeros(1, 3, 16, 16).int()], "must be float32"),
    "infinite": ([torch.full((1, 3, 16, 16), torch.inf)], "first in frame 0"),
    "late": ([torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), torch.nan)], "in frame 1"),
    "sizes": ([torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 24)], "frame 1 has"),
}


@pytest.mark.parametrize(("frames", "sentence"), BAD.values(), ids=BAD)
def test_what_is_no_frame_is_refused(vae: VideoVAE, frames: list, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        list(vae.encode_stream(frames))


def test_the_size_is_told_only_at_the_end(vae: VideoVAE) -> None:
    stream = vae.encode_stream(in_runs(random_video(7, 16, 16), 1), Settings(chunk_frames=FULL))
    next(stream)
    with pytest.raises(InputError, match="pull all of it"):
        _ = stream.fitted
    list(stream)
    assert stream.fitted.source == Extent(7, 16, 16)


class Stored:
    """Latents that are read piece by piece."""

    device = torch.device("cpu")

    def __init__(self, latents: Tensor) -> None:
        self.shape = latents.shape
        self.most = 0
        self._latents = latents

    def take(self, frames: Interval) -> Tensor:
        self.most = max(self.most, frames.size)
        return self._latents[:, :, frames.start : frames.stop]


@pytest.mark.parametrize("tiling", ["exact", "blend"])
def test_latents_are_decoded_as_they_are_read(vae: VideoVAE, tiling: str) -> None:
    latents = random_latents(6, 4, 4)
    settings = Settings(chunk_frames=FULL, tiling=tiling, tile_px=16, overlap_px=8)
    stored = Stored(latents)
    video = torch.cat(list(vae.decode_stream(stored, settings)), 2)
    assert torch.equal(video, vae.decode(latents, settings))
    assert stored.most == (2 if tiling == "exact" else 6)


def in_one_buffer(video: Tensor, run: int) -> Iterator[Tensor]:
    """Runs of `run` frames, each written where the one before it was, as many readers do."""
    buffer = torch.empty_like(video[:, :, :run])
    for frames in video.split(run, dim=2):
        part = buffer[:, :, : frames.shape[2]]
        yield part.copy_(frames)
        buffer.fill_(9.0)


@pytest.mark.parametrize("run", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(chunk_frames=FULL),
        Settings(chunk_frames=FULL, placement="host"),
        Settings(chunk_frames=8, norm_scope="clip"),
        Settings(chunk_frames=8, norm_scope="clip", placement="mmap"),
    ],
)
def test_a_source_may_write_all_its_frames_into_one_buffer(
    vae: VideoVAE, run: int, settings: Settings
) -> None:
    video = random_video(14, 12, 16)
    moments = list(vae.encode_stream(in_one_buffer(video, run), settings))
    assert torch.equal(torch.cat(moments, 2), vae.encode(video, settings).moments)


@pytest.mark.parametrize("good", [0, 1, 6, 9])
def test_a_frame_that_is_none_is_no_end_of_a_stream(vae: VideoVAE, good: int) -> None:
    frames = [*random_video(9, 16, 16).unbind(2)]
    stream = vae.encode_stream(iter([*frames[:good], None, *frames]), Settings(chunk_frames=FULL))
    with pytest.raises(InputError, match=f"item at frame {good} is NoneType"):
        list(stream)
