"""What becomes of ranks that do not mean the same, and of one whose device is short of memory?"""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from networks import random_latents, random_module, random_video
from ranks import on_ranks, results

from vae_core import ParallelError, Settings, SettingsError, cli, from_module
from vae_core.datasets.buckets import Bucket
from vae_core.datasets.encoding import Recipe
from vae_core.errors import DeviceMemoryError
from vae_core.running.meeting import Meeting
from vae_core.running.tile import TileRunner

EVERYBODY = Settings(parallel_result="all")


@pytest.fixture(scope="module")
def vae():
    return from_module(random_module(torch.float64))


def sentences(count, work) -> set[str]:
    """What all ranks are refused with."""
    found = on_ranks(count, work)
    assert all(isinstance(one, SettingsError) for one in found), found
    return {str(one) for one in found}


def test_other_weights_are_refused(vae) -> None:
    other = random_module(torch.float64)
    with torch.no_grad():
        other.decoder.conv_out.conv.bias.add_(0.5)
    own = [vae, from_module(other), vae]
    latents = random_latents(1, 5, 4, torch.float64)
    (said,) = sentences(3, lambda seat: own[seat.rank()].decode(latents, Settings(parallel=seat)))
    assert "rank 1 was given others than rank 0 (weights)" in said


def test_weights_of_another_dtype_that_are_computed_in_one_are_the_same(vae) -> None:
    single = random_module(torch.float32)
    own = [from_module(single, torch.float64), from_module(random_module(torch.float32).double())]
    latents = random_latents(1, 5, 4, torch.float64)
    run = replace(EVERYBODY)
    found = results(2, lambda seat: own[seat.rank()].decode(latents, replace(run, parallel=seat)))
    assert torch.equal(*found)


def test_a_clip_of_the_same_size_with_other_pixels_is_refused(vae) -> None:
    latents = random_latents(3, 5, 4, torch.float64)
    (said,) = sentences(2, lambda seat: vae.decode(latents + seat.rank(), Settings(parallel=seat)))
    assert "rank 1 was given other pixels than rank 0" in said
    assert "draw it from the same seed" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"norm_scope": "clip"}, "(architecture or settings)"),
        ({"parallel_result": "bands"}, "(architecture or settings)"),
    ],
)
def test_other_settings_are_refused(change, said, vae) -> None:
    latents = random_latents(3, 5, 4, torch.float64)

    def work(seat):
        settings = replace(Settings(parallel=seat), **(change if seat.rank() else {}))
        return vae.decode(latents, settings)

    (sentence,) = sentences(2, work)
    assert said in sentence


def test_numbers_that_differ_are_named(vae) -> None:
    def work(seat):
        return vae.decode(
            random_latents(1 + seat.rank(), 5, 4, torch.float64), Settings(parallel=seat)
        )

    (said,) = sentences(2, work)
    assert "(frames: 2, not 1)" in said


def test_a_stream_that_ends_earlier_on_one_rank_is_refused_there_and_then(vae) -> None:
    video = random_video(41, 40, 32, torch.float64)

    def work(seat):
        frames = video[:, :, : 33 + 8 * (seat.rank() == 0)]
        stream = vae.encode_stream(iter(frames.unbind(2)), Settings(parallel=seat))
        return list(stream)

    (said,) = sentences(2, work)
    assert "a clip of another length" in said


def test_chunks_are_as_short_as_the_shortest_that_a_rank_wants(vae) -> None:
    """Devices have other memory, and tiles and places may differ."""
    latents = random_latents(5, 5, 4, torch.float64)
    alone = vae.decode(latents)

    def work(seat):
        settings = replace(EVERYBODY, parallel=seat, tile_px=16 * (1 + seat.rank()))
        return vae.decode(latents, replace(settings, placement=PLACES[seat.rank()]))

    for found in results(3, work):
        assert torch.allclose(found, alone, rtol=0, atol=1e-12)


PLACES = ("device", "host", "mmap")


def test_a_group_of_one_is_nothing_else_than_no_group(vae) -> None:
    (seat,) = Meeting(1, 1.0).seats()
    latents = random_latents(2, 5, 4, torch.float64)
    assert torch.equal(vae.decode(latents, Settings(parallel=seat)), vae.decode(latents))
    plan = vae.plan_decode(latents.shape, Settings(parallel=1))
    assert plan.describe() == vae.plan_decode(latents.shape).describe()


def short_of_memory(monkeypatch, rank: int, times: int, after: int = 20) -> None:
    """Let a rank's tiles fail so often, from the one after so many on."""
    run, here = TileRunner.run, threading.local()

    def short(self, task, cells, following=None):
        here.tiles = getattr(here, "tiles", 0) + 1
        if threading.current_thread().name == str(rank) and 0 <= here.tiles - after < times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        run(self, task, cells, following)

    monkeypatch.setattr(TileRunner, "run", short)


def named(work):
    """`work`, in a thread that has the name of its rank."""

    def run(seat):
        threading.current_thread().name = str(seat.rank())
        return work(seat)

    return run


@pytest.mark.parametrize("times", [1, 3, 8])
def test_a_rank_that_is_short_of_memory_takes_smaller_pieces_by_itself(
    times, vae, monkeypatch
) -> None:
    latents = random_latents(3, 12, 4, torch.float64)
    alone = vae.decode(latents)
    short_of_memory(monkeypatch, 1, times)
    run = named(lambda seat: vae.decode(latents, replace(EVERYBODY, parallel=seat)))
    for found in results(3, run):
        assert torch.allclose(found, alone, rtol=0, atol=1e-12)


def test_a_rank_that_never_has_memory_ends_all_with_its_sentence(vae, monkeypatch) -> None:
    short_of_memory(monkeypatch, 1, 10**6)
    latents = random_latents(1, 5, 4, torch.float64)
    zero, one, two = on_ranks(3, named(lambda seat: vae.decode(latents, Settings(parallel=seat))))
    assert isinstance(one, DeviceMemoryError)
    for other in (zero, two):
        assert isinstance(other, ParallelError)
        assert "rank 1 failed, and so all end: DeviceMemoryError: out of memory at" in str(other)


@pytest.mark.parametrize("seconds", [float("inf"), 1e12])
def test_a_timeout_that_no_system_can_count_is_refused(seconds) -> None:
    with pytest.raises(SettingsError, match="parallel_timeout_s must be a number of seconds"):
        Settings(parallel_timeout_s=seconds)


def test_a_folder_s_clips_are_not_shared_among_processes() -> None:
    buckets = (Bucket(5, 32, 32),)
    with pytest.raises(SettingsError, match="clips of a folder are not shared among processes"):
        Recipe(buckets, Settings(parallel=2), fps=Fraction(8))
    assert Recipe(buckets, Settings(parallel=("cpu", "cpu"))).settings.ranks == 2


def test_encode_dataset_under_a_launcher_is_refused(monkeypatch, tmp_path, capsys) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["encode-dataset", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "encode-dataset is for one process" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
