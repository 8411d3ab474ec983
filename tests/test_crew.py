"""Do several devices of one process that share a run give what one of them gives alone?

Two or three processors play the devices: each has its own thread, plan and stores.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from networks import NARROW, random_latents, random_module, random_video
from pack import part, run

from vae_core import Extent, ParallelError, Settings, SettingsError, from_module
from vae_core.running import crew
from vae_core.running.execute import Execution

TWO = Settings(parallel=("cpu", "cpu"))
THREE = replace(TWO, parallel=("cpu",) * 3)
core = part("vae_core")


@pytest.fixture
def vae():
    return from_module(random_module(torch.float64))


@pytest.fixture
def threads() -> int:
    """How many there were before a test: those of earlier ones may still be waiting for others."""
    return threading.active_count()


@pytest.mark.parametrize("family", NARROW)
def test_two_devices_give_what_one_gives(family) -> None:
    vae = from_module(NARROW[family](torch.float64))
    latents = random_latents(3, 5, 3, torch.float64, batch=2, channels=vae.latent_channels)
    alone = vae.decode(latents)
    assert torch.allclose(vae.decode(latents, TWO), alone, rtol=0, atol=1e-12)
    video = alone.clamp(-1, 1)
    moments = vae.encode(video).moments
    assert torch.allclose(vae.encode(video, TWO).moments, moments, rtol=0, atol=1e-12)


def test_core_s_attention_is_shared_as_well() -> None:
    vae = from_module(NARROW["hunyuan15"](torch.float64))
    latents = random_latents(3, 5, 3, torch.float64, channels=vae.latent_channels)
    settings = Settings(reference="core", chunk_frames=4)
    shared = vae.decode(latents, replace(settings, parallel=("cpu", "cpu")))
    assert torch.allclose(shared, vae.decode(latents, settings), rtol=0, atol=1e-12)


def test_streams_trims_and_clip_scope_are_those_of_one(vae) -> None:
    video = random_video(13, 38, 30, torch.float64)
    settings = replace(THREE, norm_scope="clip")
    posterior = vae.encode(video, replace(settings, parallel=None))
    moments = torch.cat(list(vae.encode_stream(iter(video.unbind(2)), settings)), 2)
    assert torch.allclose(moments, posterior.moments, rtol=0, atol=1e-12)
    latents, size = posterior.mode(), posterior.fitted.source
    alone = vae.decode(latents, trim=size)
    assert torch.allclose(vae.decode(latents, THREE, size), alone, rtol=0, atol=1e-12)
    frames = torch.cat(list(vae.decode_stream(latents, THREE)), 2)
    assert torch.allclose(frames[:, :, : size.t, : size.h, : size.w], alone, rtol=0, atol=1e-12)


def test_a_choice_of_what_ranks_are_given_means_nothing_in_one_process(vae) -> None:
    latents = random_latents(2, 5, 4, torch.float64)
    alone = vae.decode(latents)
    for given in ("first", "bands", "all"):
        assert vae.decode(latents, replace(TWO, parallel_result=given)).shape == alone.shape


def test_each_device_has_a_thread_and_rows_of_its_own(vae, monkeypatch, threads) -> None:
    found, run_one = {}, Execution.run

    def noted(self, chunk, source, sink, *, last):
        found[threading.get_ident()] = sink.shape[3]
        run_one(self, chunk, source, sink, last=last)

    monkeypatch.setattr(Execution, "run", noted)
    vae.decode(random_latents(2, 5, 4, torch.float64), THREE)
    assert len(found) == 3
    assert sum(found.values()) == 40
    assert threading.get_ident() in found
    assert threading.active_count() <= threads


def test_a_plan_says_who_shares_and_what_each_takes(vae) -> None:
    plan = vae.plan_decode((1, 4, 5, 60, 90), TWO)
    alone = vae.plan_decode((1, 4, 5, 60, 90))
    (other,) = plan.others
    assert other.peak_bytes == plan.peak_bytes < alone.peak_bytes
    assert "ranks: cpu, cpu; memory and tiles are those of one" in plan.describe()
    assert alone.others == ()


def test_one_device_is_refused_and_so_is_one_twice() -> None:
    with pytest.raises(SettingsError, match="on one it needs no parallel; got cuda:0"):
        Settings(parallel=("cuda:0",))
    with pytest.raises(SettingsError, match="got cuda:1 twice"):
        Settings(parallel=[torch.device("cuda:1"), "cuda:1"])


@pytest.mark.parametrize("name", ["cuda:99", "quark", "", "meta"])
def test_an_unknown_device_is_refused_with_those_that_there_are(name, vae) -> None:
    with pytest.raises(SettingsError, match=f"got '{name}', and this process has cpu"):
        vae.plan_decode((1, 4, 5, 5, 5), Settings(parallel=("cpu", name)))


def test_the_vae_s_own_device_is_one_of_them(vae) -> None:
    elsewhere = from_module(vae.module, device="meta")
    with pytest.raises(SettingsError, match=r"which is meta; got cpu, cpu\. Add it"):
        crew.members_of(elsewhere, TWO)


def test_what_fails_on_one_device_ends_all_and_is_what_the_caller_is_told(
    vae, monkeypatch, threads
) -> None:
    run_one, latents = crew._Share._run_rows, random_latents(2, 5, 4, torch.float64)
    for failing in range(len(vae.plan_decode(latents.shape).job.program.steps)):

        def broken(self, index, at, last, rows=None, failing=failing):
            if threading.current_thread() is not threading.main_thread() and index == failing:
                raise ZeroDivisionError(f"of a thread in step {failing}")
            run_one(self, index, at, last, rows)

        monkeypatch.setattr(crew._Share, "_run_rows", broken)
        with pytest.raises(ZeroDivisionError, match=f"in step {failing}$"):
            vae.decode(latents, THREE)
        assert threading.active_count() <= threads


def test_a_person_who_stops_a_run_stops_all_devices(vae, threads) -> None:
    def stop(progress) -> None:
        if progress.done_operations > progress.total_operations / 6:
            raise KeyboardInterrupt

    latents = random_latents(2, 5, 4, torch.float64)
    with pytest.raises(KeyboardInterrupt):
        vae.decode(latents, replace(TWO, on_progress=stop))
    assert threading.active_count() <= threads
    assert torch.isfinite(vae.decode(latents, TWO)).all()


def test_a_device_that_takes_too_long_is_named(vae, monkeypatch) -> None:
    held = threading.Event()
    run_one = crew._Share._run_rows

    def slow(self, index, at, last, rows=None):
        if threading.current_thread() is not threading.main_thread() and index == 7:
            held.wait(2.0)
        run_one(self, index, at, last, rows)

    monkeypatch.setattr(crew._Share, "_run_rows", slow)
    settings = replace(TWO, parallel_timeout_s=0.1)
    with pytest.raises(ParallelError, match=r"rank 0 of 2 waited for rank 1 more than 0\.1 s"):
        vae.decode(random_latents(2, 5, 4, torch.float64), settings)


def test_a_slow_reader_of_a_stream_is_waited_for(vae, threads) -> None:
    """Threads end with each chunk, so that no device waits for whoever takes the frames."""
    latents = random_latents(5, 5, 4, torch.float64)
    stream = vae.decode_stream(latents, replace(TWO, chunk_frames=4, parallel_timeout_s=1.0))
    first = next(stream)
    assert threading.active_count() <= threads
    assert first.shape[2] > 0
    stream.close()


def test_apply_s_devices_hold_for_its_own_calls_and_for_the_nodes_of_this_pack() -> None:
    (vae,) = run("ExactVAELoader")
    (shared,) = run("ExactVAEApply", vae=vae, devices="cpu, cpu")
    assert shared.exact_settings.devices == ("cpu", "cpu")
    latents = random_latents(3, 5, 4, channels=vae.ends.channels)
    (expected, _), (found, told) = (
        run("ExactVAEDecodeFramewise", samples={"samples": latents}, vae=one)
        for one in (vae, shared)
    )
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    assert "ranks: cpu, cpu" in told
    assert torch.allclose(shared.decode(latents)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("written", ["", "  ", ","])
def test_no_name_leaves_a_run_to_one_device(written) -> None:
    (vae,) = run("ExactVAELoader")
    (found,) = run("ExactVAEApply", vae=vae, devices=written)
    assert found.exact_settings.parallel is None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("cuda:0", "devices must name two or more that share a run, .*; got cuda:0 alone"),
        ("cpu cuda:99", "got 'cuda:99', and this process has cpu"),
        ("cpu, the other one", "got 'the', and this process has cpu"),
        (7, "devices must be text; got 7"),
    ],
)
def test_apply_refuses_devices_that_cannot_share(written, said) -> None:
    (vae,) = run("ExactVAELoader")
    with pytest.raises(core.SettingsError, match=said):
        run("ExactVAEApply", vae=vae, devices=written)


def test_blended_tiles_behind_apply_are_refused_with_a_sentence() -> None:
    (vae,) = run("ExactVAELoader")
    (shared,) = run("ExactVAEApply", vae=vae, devices="cpu;cpu")
    samples = {"samples": random_latents(3, 5, 4, channels=vae.ends.channels)}
    with pytest.raises(core.SettingsError, match="blended tiles cannot be shared"):
        run("ExactVAEDecodeFramewise", samples=samples, vae=shared, tiling="blend")


def test_a_size_to_keep_is_kept(vae) -> None:
    latents = random_latents(1, 5, 4, torch.float64)
    assert vae.decode(latents, TWO, Extent(1, 33, 17)).shape[2:] == (1, 33, 17)
