"""Do several ranks that share the work give what one gives, and hand each other no more than they
must?
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from networks import NARROW, full_size_module, random_latents, random_module, random_video
from ranks import Counted, on_ranks, poison, results, seated

from vae_core import ParallelError, Settings, SettingsError, from_module
from vae_core.geometry.region import Interval
from vae_core.planning.exchanged import exchanged
from vae_core.program.parts import Attend
from vae_core.program.shares import shares_of
from vae_core.running.meeting import Meeting
from vae_core.settings import Given

EVERYBODY = Settings(parallel_result=Given.ALL)


def decoded(vae, latents, settings, count):
    return results(count, lambda seat: vae.decode(latents, replace(settings, parallel=seat)))


def encoded(vae, video, settings, count):
    run = replace(settings, parallel_result=Given.ALL)
    return results(count, lambda seat: vae.encode(video, replace(run, parallel=seat)).moments)


def assert_all_are(found, expected, tolerance) -> None:
    for one in found:
        assert one.shape == expected.shape
        assert float((one - expected).abs().max()) <= tolerance


@pytest.mark.parametrize("count", [2, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", NARROW)
def test_ranks_decode_and_encode_what_one_does(family, count) -> None:
    """Five rows of latents: of seven ranks some have none of them."""
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(3, 5, 3, torch.float64, channels=vae.latent_channels)
    alone = vae.decode(latents)
    assert_all_are(decoded(vae, latents, EVERYBODY, count), alone, 1e-12)
    video = alone.clamp(-1, 1)
    assert_all_are(encoded(vae, video, EVERYBODY, count), vae.encode(video).moments, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["chunk", "clip"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("frames", [1, 5, 21])
@pytest.mark.parametrize("family", ["cogvideox", "wan", "hunyuan15"])
def test_batches_scopes_and_lengths_make_no_difference(family, frames, count, scope) -> None:
    vae = from_module(NARROW[family](torch.float64))
    settings = replace(EVERYBODY, norm_scope=scope)
    video = random_video(frames, 7 * vae.ratios.px - 3, 40, torch.float64, batch=2)
    moments = vae.encode(video, settings).moments
    assert_all_are(encoded(vae, video, settings, count), moments, 1e-12)
    latents = moments.chunk(2, dim=1)[0]
    alone = vae.decode(latents, settings)
    assert_all_are(decoded(vae, latents, settings, count), alone, 1e-12)


@pytest.mark.parametrize("scope", ["chunk", "clip"])
def test_statistics_of_a_clip_or_a_chunk_are_those_of_all_ranks(scope) -> None:
    vae = from_module(random_module(torch.float64))
    settings = replace(EVERYBODY, norm_scope=scope, tile_px=32)
    latents = random_latents(5, 7, 5, torch.float64, batch=2)
    alone = vae.decode(latents, settings)
    assert_all_are(decoded(vae, latents, settings, 3), alone, 1e-12)


def test_float32_is_as_near_as_rounding_allows() -> None:
    vae = from_module(random_module())
    latents = random_latents(3, 6, 5)
    alone = vae.decode(latents)
    span = float(alone.max() - alone.min())
    assert_all_are(decoded(vae, latents, EVERYBODY, 4), alone, 1e-5 * span)


def test_core_s_attention_over_all_frames_sees_the_rows_of_all_ranks() -> None:
    vae = from_module(NARROW["hunyuan15"](torch.float64))
    settings = replace(EVERYBODY, reference="core", chunk_frames=4)
    latents = random_latents(3, 5, 3, torch.float64, channels=vae.latent_channels)
    alone = vae.decode(latents, settings)
    assert_all_are(decoded(vae, latents, settings, 3), alone, 1e-12)


@pytest.mark.parametrize("placement", ["host", "mmap"])
def test_far_stores_make_no_difference(placement) -> None:
    vae = from_module(random_module(torch.float64))
    latents = random_latents(3, 5, 4, torch.float64)
    alone, settings = vae.decode(latents), replace(EVERYBODY, placement=placement)
    assert_all_are(decoded(vae, latents, settings, 3), alone, 1e-12)


def test_twice_the_ranks_are_twice_the_work_of_planning(monkeypatch) -> None:
    program, meet, asked = from_module(random_module()).decoder, Interval.meet, [0]

    def counted(one: Interval, other: Interval) -> Interval:
        asked[0] += 1
        return meet(one, other)

    def work(count: int) -> int:
        asked[0] = 0
        shares_of(program, 2**10, count)
        return asked[0]

    monkeypatch.setattr(Interval, "meet", counted)
    assert work(256) <= 2.2 * work(128)


def test_more_ranks_than_a_picture_has_rows_are_refused() -> None:
    with pytest.raises(SettingsError, match="at most 16,384 ranks; got 1000000"):
        Settings(parallel=10**6)


@pytest.mark.parametrize(
    ("family", "reference"), [("ltx", "official"), ("hunyuan15", "core"), ("hunyuan", "core")]
)
def test_a_rank_without_rows_keeps_nothing_of_other_chunks_in_a_file(family, reference) -> None:
    """Two rows of latents for five ranks, in networks that keep stores of all chunks."""
    vae = from_module(NARROW[family](torch.float64))
    settings = replace(EVERYBODY, placement="mmap", reference=reference, chunk_frames=4)
    latents = random_latents(3, 2, 2, torch.float64, channels=vae.latent_channels)
    alone = vae.decode(latents, settings)
    assert_all_are(decoded(vae, latents, settings, 5), alone, 1e-12)


def test_streams_are_shared_alike() -> None:
    vae = from_module(random_module(torch.float64))
    video = random_video(13, 40, 32, torch.float64)
    alone = vae.encode(video).moments

    def stream(seat):
        settings = replace(EVERYBODY, parallel=seat)
        moments = torch.cat(list(vae.encode_stream(iter(video.unbind(2)), settings)), 2)
        frames = torch.cat(list(vae.decode_stream(moments.chunk(2, 1)[0], settings)), 2)
        return moments, frames

    for moments, frames in on_ranks(3, stream):
        assert float((moments - alone).abs().max()) <= 1e-12
        assert float((frames - vae.decode(alone.chunk(2, 1)[0])).abs().max()) <= 1e-12


@pytest.mark.parametrize("family", ["cogvideox", "wan", "hunyuan15"])
def test_what_lies_outside_bands_and_halos_is_never_read(family, monkeypatch) -> None:
    """Memory of stores and caches is NaN until a rank has written it, or received it."""
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(3, 5, 3, torch.float64, channels=vae.latent_channels)
    alone = vae.decode(latents)
    poison(monkeypatch.setattr)
    assert_all_are(decoded(vae, latents, EVERYBODY, 3), alone, 1e-12)


def test_each_rank_is_given_what_was_chosen() -> None:
    vae = from_module(random_module(torch.float64))
    latents = random_latents(2, 5, 4, torch.float64)
    alone = vae.decode(latents)
    first, *others = decoded(vae, latents, Settings(), 3)
    assert torch.allclose(first, alone, rtol=0, atol=1e-12)
    assert all(other.shape == (*alone.shape[:3], 0, alone.shape[4]) for other in others)
    bands = decoded(vae, latents, Settings(parallel_result="bands"), 3)
    assert [band.shape[3] for band in bands] == [13, 13, 14]
    assert torch.allclose(torch.cat(bands, 3), alone, rtol=0, atol=1e-12)


def test_trimmed_bands_make_up_the_trimmed_clip() -> None:
    vae = from_module(random_module(torch.float64))
    video = random_video(5, 35, 30, torch.float64)
    posterior = vae.encode(video)
    latents, size = posterior.mode(), posterior.fitted.source
    bands = results(
        3,
        lambda seat: vae.decode(latents, Settings(parallel=seat, parallel_result="bands"), size),
    )
    alone = vae.decode(latents, trim=size)
    assert torch.allclose(torch.cat(bands, 3), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["cogvideox", "wan", "ltx", "hunyuan15"])
@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("rows", [1, 5, 90])
def test_every_row_is_made_once_and_held_where_it_is_read(family, count, rows) -> None:
    vae = from_module(NARROW[family](torch.float32))
    for program, height in ((vae.decoder, rows), (vae.encoder, rows * vae.ratios.px)):
        shares = shares_of(program, height, count)
        for store, whole in enumerate(shares.heights):
            bands = [share.own[store] for share in shares.ranks]
            if store:
                assert bands[0].start == 0
                assert bands[-1].stop == whole
                assert all(a.stop == b.start for a, b in pairwise(bands))
            for share in shares.ranks:
                assert share.own[store].size == 0 or share.held[store].contains(share.own[store])
        for step, moves in zip(program.steps, shares.moves, strict=True):
            for move in moves:
                assert shares.ranks[move.of].own[step.dst].contains(move.rows)
                assert shares.ranks[move.to].held[step.dst].contains(move.rows)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_a_rank_holds_its_part_of_720_rows_and_little_more(count, way) -> None:
    vae = from_module(full_size_module())
    shape = (1, 3, 49, 720, 1280) if way == "encode" else (1, 16, 13, 90, 160)
    plan = vae.plan_encode if way == "encode" else vae.plan_decode
    alone, one = plan(shape), plan(shape, Settings(parallel=count))
    held = max(row.store_bytes + row.cache_bytes + row.far_bytes for row in alone.rows)
    mine = max(row.store_bytes + row.cache_bytes + row.far_bytes for row in one.rows)
    assert mine <= 1.15 / count * held
    assert one.operations <= 1.15 / count * alone.operations
    assert f"ranks: {count}" in one.describe()


@pytest.mark.parametrize("family", ["cogvideox", "hunyuan15"])
def test_rows_around_bands_and_statistics_are_all_that_is_sent(family) -> None:
    vae = from_module(NARROW[family](torch.float32))
    latents = random_latents(3, 5, 3, channels=vae.latent_channels)
    meeting = Meeting(3, 60.0)
    seats = tuple(Counted(meeting, rank) for rank in range(3))
    settings = Settings(parallel_result="bands")
    seated(seats, lambda seat: vae.decode(latents, replace(settings, parallel=seat)))
    found = exchanged(vae.plan_decode(latents.shape, Settings(parallel=3)))
    assert sum(one.rows_bytes for one in found) == sum(seat.rows_bytes for seat in seats)
    told = sum(seat.statistics_bytes for seat in seats)
    assert sum(one.statistics_bytes for one in found) == told


def test_keys_that_meet_their_own_place_alone_stay_with_the_rank_that_made_them() -> None:
    """Of Mochi's encoder: each of two ranks keeps half of them, and tells the other of none."""
    vae, shape = from_module(NARROW["mochi"](torch.float32), device="meta"), (1, 3, 61, 256, 64)
    program = vae.encoder
    moves = shares_of(program, 256, 2).moves
    attending = [index for index, step in enumerate(program.steps) if isinstance(step.mix, Attend)]
    assert attending
    assert not any(moves[index - 1] for index in attending)
    settings = Settings(placement="caches-on-host", chunk_frames=12)
    alone, one = (vae.plan_encode(shape, replace(settings, parallel=n)) for n in (None, 2))
    assert 0.5 * alone.far_bytes <= one.far_bytes <= 0.6 * alone.far_bytes
    assert one.moved_bytes <= 0.6 * alone.moved_bytes


def test_what_fails_on_one_rank_ends_the_others_with_its_sentence() -> None:
    vae = from_module(random_module())
    latents = random_latents(3, 5, 4)

    def work(seat):
        def stop(progress):
            if seat.rank() == 1 and progress.chunk_index == 1:
                raise ValueError("no more of this")

        return vae.decode(latents, Settings(parallel=seat, chunk_frames=4, on_progress=stop))

    zero, one, two = on_ranks(3, work)
    assert isinstance(one, ValueError)
    for other in (zero, two):
        assert isinstance(other, ParallelError)
        assert str(other) == "rank 1 failed, and so all end: ValueError: no more of this"


def test_a_rank_that_never_comes_is_missed() -> None:
    vae = from_module(random_module())
    latents = random_latents(1, 5, 4)

    def work(seat):
        return None if seat.rank() else vae.decode(latents, Settings(parallel=seat))

    error, _ = on_ranks(2, work, timeout_s=0.2)
    assert isinstance(error, ParallelError)
    assert "waited for rank 1 more than 0.2 s" in str(error)


def test_ranks_that_mean_different_clips_are_all_refused() -> None:
    vae = from_module(random_module())

    def work(seat):
        return vae.decode(random_latents(1, 5 + seat.rank(), 4), Settings(parallel=seat))

    for error in on_ranks(2, work):
        assert isinstance(error, SettingsError)
        assert "rank 1 was given others than rank 0" in str(error)


@pytest.mark.parametrize("group", ["gloo", 0, -1, True, 2.0])
def test_what_is_no_group_is_refused(group) -> None:
    with pytest.raises(SettingsError, match="parallel must be"):
        Settings(parallel=group)


def test_a_number_of_ranks_is_for_plans_alone() -> None:
    vae = from_module(random_module())
    with pytest.raises(SettingsError, match="A number of ranks is for plans"):
        vae.decode(random_latents(1, 5, 4), Settings(parallel=2))


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "5", None, True])
def test_a_timeout_is_a_number_of_seconds(seconds) -> None:
    with pytest.raises(SettingsError, match="parallel_timeout_s must be a number of seconds"):
        Settings(parallel_timeout_s=seconds)


def test_blended_tiles_are_not_shared() -> None:
    with pytest.raises(SettingsError, match="blended tiles cannot be shared"):
        Settings(parallel=2, tiling="blend")
