"""Is what is no tensor, no settings and no number at all refused in one sentence of ours?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import random_latents, random_module, random_video

import vae_core
from vae_core import (
    InputError,
    LoadError,
    LoweringError,
    Settings,
    SettingsError,
    VideoVAE,
    from_module,
    scaled,
    scaling_factor,
    to_kijai,
    unscaled,
)
from vae_core.accelerate import accelerate

MODULE = random_module()
VIDEO, LATENTS = random_video(5, 16, 16), random_latents(2, 2, 2)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    return from_module(MODULE)


def pull(stream) -> None:
    for _ in stream:
        pass


def streamed(vae: VideoVAE, frame_count: object) -> None:
    pull(vae.encode_stream(iter([VIDEO]), frame_count=frame_count))


WRONG: dict[str, tuple[type[Exception], str, Callable[[VideoVAE], object]]] = {
    "no video": (InputError, "must be a torch.Tensor.*NoneType", lambda v: v.encode(None)),
    "numpy": (InputError, "got ndarray.*from_numpy", lambda v: v.encode(VIDEO.numpy())),
    "no latents": (InputError, "latents must be a torch.Tensor", lambda v: v.decode(None)),
    "no latents to stream": (
        InputError,
        "latents must be a torch.Tensor",
        lambda v: pull(v.decode_stream(None)),
    ),
    "no stream": (InputError, "iterable.*got NoneType", lambda v: v.encode_stream(None)),
    "a number to stream": (InputError, "iterable.*got int", lambda v: v.encode_stream(5)),
    "a dict": (SettingsError, r"got dict. Write Settings\(", lambda v: v.encode(VIDEO, {})),
    "no settings": (SettingsError, "got NoneType", lambda v: v.decode(LATENTS, None)),
    "no settings for a stream": (
        SettingsError,
        "got NoneType",
        lambda v: v.encode_stream(iter([VIDEO]), None),
    ),
    "a plan's settings": (SettingsError, "got dict", lambda v: v.plan_encode(VIDEO.shape, {})),
    "a count in words": (InputError, "whole number.*got '5'", lambda v: streamed(v, "5")),
    "an infinite count": (InputError, "whole number.*got inf", lambda v: streamed(v, np.inf)),
    "sparse": (InputError, "dense.*sparse_coo", lambda v: v.encode(VIDEO.to_sparse())),
    "sparse latents": (InputError, "dense.*sparse_coo", lambda v: v.decode(LATENTS.to_sparse())),
    "sparse frames": (
        InputError,
        "frame 0 of a stream must be a dense",
        lambda v: pull(v.encode_stream(iter([VIDEO.to_sparse()]))),
    ),
    "a trim in three numbers": (
        InputError,
        r"trim must be a vae_core.Extent.*got \(5, 16, 16\)",
        lambda v: v.decode(LATENTS, trim=(5, 16, 16)),
    ),
    "a trim of nothing": (
        InputError,
        "at least one frame, row and column",
        lambda v: v.decode(LATENTS, trim=vae_core.Extent(0, 16, 16)),
    ),
    "a trim below nothing": (
        InputError,
        "at least one frame, row and column",
        lambda v: v.decode(LATENTS, trim=vae_core.Extent(5, -1, 16)),
    ),
    "a trim in fractions": (
        InputError,
        "in whole numbers",
        lambda v: v.decode(LATENTS, trim=vae_core.Extent(5, 16, 2.5)),
    ),
    "no shape": (InputError, "five whole numbers; got None", lambda v: v.plan_encode(None)),
    "more frames than anybody has": (
        InputError,
        "4194304 frames at most.*got 1000000000",
        lambda v: v.plan_decode((1, 4, 10**9, 2, 2)),
    ),
    "a broken shape": (
        InputError,
        "five whole numbers",
        lambda v: v.plan_decode((1, 4, 2.5, 2, 2)),
    ),
    "a dtype in words": (
        SettingsError,
        "torch.bfloat16.*got 'float32'",
        lambda _: from_module(MODULE, dtype="float32"),
    ),
    "a dtype of integers": (
        SettingsError,
        "got torch.int8",
        lambda _: from_module(MODULE, dtype=torch.int8),
    ),
    "a device that is none": (
        SettingsError,
        "got 'nowhere'",
        lambda _: from_module(MODULE, device="nowhere"),
    ),
    "a path for a module": (LoweringError, "vae_core.load", lambda _: from_module("vae/")),
    "a dtype to load": (
        SettingsError,
        "got 'bf16'",
        lambda _: vae_core.load(vae_core.tiny_vae_path(), dtype="bf16"),
    ),
    "no path": (LoadError, "path.*got None", lambda _: vae_core.load(None)),
    "a number for a path": (LoadError, "path.*got 5", lambda _: vae_core.load(5)),
    "bytes for a path": (LoadError, "path.*got b'a'", lambda _: vae_core.load(b"a")),
    "an empty path": (LoadError, "path.*got ''", lambda _: vae_core.load("")),
    "a seed for a generator": (
        InputError,
        "torch.Generator; got 5.*manual_seed",
        lambda v: v.encode(VIDEO).sample(5),
    ),
    "no LATENT": (InputError, "a LATENT is a dict.*NoneType", lambda _: vae_core.latents_of(None)),
    "no LATENT of kijai's": (
        InputError,
        "a LATENT is a dict.*list",
        lambda _: vae_core.from_kijai([LATENTS]),
    ),
    "nothing for kijai": (InputError, "torch.Tensor; got NoneType", lambda _: to_kijai(None)),
    "nothing to scale": (InputError, "torch.Tensor; got NoneType", lambda _: scaled(None, 1.0)),
    "a factor in words": (InputError, "above 0; got 'a'", lambda _: scaled(LATENTS, "a")),
    "no factor": (InputError, "above 0; got None", lambda _: unscaled(LATENTS, None)),
    "a factor that is true": (InputError, "above 0; got True", lambda _: scaled(LATENTS, True)),
    "a thing for a factor": (InputError, r"above 0; got \[\]", lambda _: scaling_factor([])),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_wrong_kind_of_thing_is_refused_in_a_sentence(vae: VideoVAE, name: str) -> None:
    kind, words, call = WRONG[name]
    with pytest.raises(kind, match=words) as refusal:
        call(vae)
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("plenty_of_memory")
def test_numbers_of_numpy_are_numbers(vae: VideoVAE) -> None:
    settings = Settings(
        chunk_frames=np.int64(8),
        tile_px=(np.int32(64), np.uint8(32)),
        overlap_px=np.int16(8),
        budget_bytes=np.int64(2**30),
    )
    assert settings == Settings(chunk_frames=8, tile_px=(64, 32), overlap_px=8, budget_bytes=2**30)
    assert type(settings.chunk_frames) is int
    plan = vae.plan_encode(tuple(np.array([1, 3, 9, 64, 64])), settings)
    assert plan == vae.plan_encode((1, 3, 9, 64, 64), settings)
    for value in (np.bool_(True), np.float32(8)):
        with pytest.raises(SettingsError, match="whole number"):
            Settings(chunk_frames=value)


@pytest.mark.parametrize("count", [-1, 0, 1, 7, np.int64(5), 2**62])
def test_a_wrong_count_of_frames_does_no_harm(vae: VideoVAE, count: int) -> None:
    expected = vae.encode(VIDEO).moments
    frames = iter(VIDEO.unbind(2))
    found = torch.cat(list(vae.encode_stream(frames, frame_count=count)), dim=2)
    assert torch.equal(found, expected)


def test_no_more_than_a_believable_count_is_planned_for(vae: VideoVAE) -> None:
    """2^62 frames of a header would be 2^59 chunks of a plan; the total stays unknown."""
    told = []
    settings = Settings(on_progress=told.append)
    frames = iter(random_video(13, 16, 16).unbind(2))
    pull(vae.encode_stream(frames, settings, frame_count=2**62))
    assert told
    assert {(progress.total_operations, progress.chunks) for progress in told} == {(0, 0)}


HOLLOW: dict[str, Callable[[VideoVAE, torch.device], object]] = {
    "a video": lambda v, place: v.encode(VIDEO.to(place)),
    "latents": lambda v, place: v.decode(LATENTS.to(place)),
    "a video in a stream": lambda v, place: v.encode_stream(VIDEO.to(place)),
    "frames of a stream": lambda v, place: pull(v.encode_stream(iter([VIDEO.to(place)]))),
    "latents to stream": lambda v, place: pull(v.decode_stream(LATENTS.to(place))),
}


@pytest.mark.parametrize("name", HOLLOW)
@pytest.mark.parametrize(("place", "device"), [("meta", "cpu"), ("cpu", "meta")])
def test_what_lies_on_meta_is_not_computed_with(name: str, place: str, device: str) -> None:
    vae = from_module(MODULE, device=device)
    with pytest.raises(InputError, match="meta tensors hold no values"):
        HOLLOW[name](vae, torch.device(place))


def test_plans_need_no_values() -> None:
    vae = from_module(MODULE, device="meta")
    assert vae.plan_encode(VIDEO.shape).chunks


@pytest.mark.parametrize("settings", [None, {}, 8, "exact", Settings])
def test_what_is_no_settings_is_refused_before_a_method_is_replaced(settings) -> None:
    module = random_module()
    with pytest.raises(SettingsError, match=r"must be a vae_core\.Settings"):
        accelerate(module, settings)
    assert "decode" not in vars(module)


@pytest.mark.parametrize("device", ["mps", "xpu", "hpu", torch.device("mps")])
def test_a_device_that_this_torch_lacks_is_refused_in_few_words(device: object) -> None:
    with pytest.raises(SettingsError) as refusal:
        vae_core.load(vae_core.tiny_vae_path(), device=device)
    assert f"the device {str(device)!r} cannot be used: " in str(refusal.value)
    assert len(str(refusal.value)) < 200
