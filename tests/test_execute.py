"""What does a run hold, report and leave behind?"""

from __future__ import annotations

import gc
from itertools import product
from unittest.mock import patch

import pytest
import torch
from contract import decode_frames, encode_moments, relative_error
from device_bytes import DeviceBytes
from networks import (
    TINY,
    diffusers_decode,
    diffusers_encode,
    random_latents,
    random_module,
    random_video,
    unmade_module,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, VideoVAE, from_module
from vae_core.running.stores import Reused


def on_meta(channels: tuple[int, ...] = TINY["channels"]) -> VideoVAE:
    """A narrow network whose device is played by `meta`, inside `FakeTensorMode`."""
    return from_module(
        unmade_module(torch.float32, **{**TINY, "channels": channels}), device="meta"
    )


def stores_alive(channels: tuple[int, ...], *sizes_bytes: int) -> int:
    """The most storages of these sizes that are alive at once while a clip is encoded."""
    sizes = set(sizes_bytes)
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, sum(counter.live_count[size] for size in sizes))

    counter = DeviceBytes("meta", look)
    with FakeTensorMode():
        vae, video = on_meta(channels), torch.empty(1, 3, 9, 64, 64)
        with counter:
            vae.encode(video, Settings(tile_px=16))
    return most


def test_a_block_of_one_width_holds_two_stores() -> None:
    full_bytes = 9 * 64 * 64 * 8 * 4  # frames x height x width x channels x bytes
    assert stores_alive((8, 16, 16, 16), full_bytes) == 2


def test_a_block_that_changes_width_holds_three_stores() -> None:
    voxels = 5 * 32 * 32  # after one level of pooling in time and space
    assert stores_alive((8, 16, 16, 16), voxels * 8 * 4, voxels * 16 * 4) == 3


def cache_bytes(program, side: int) -> int:
    """Bytes of all causal caches for pictures of `side` pixels, float32."""
    return sum(
        {1: 0, 2: 1, 3: 2}[step.taps[0]]
        * (side // program.stores[step.src].px) ** 2
        * step.mix.in_channels
        * 4
        for step in program.steps
    )


def test_only_convolutions_with_history_keep_a_cache() -> None:
    counter = DeviceBytes("meta")
    with FakeTensorMode():
        vae, latents = on_meta(), torch.empty(1, 4, 5, 4, 4)
        stream = vae.decode_stream(latents, Settings(chunk_frames=8))
        with counter:
            next(stream)
    program = vae.plan_decode(latents.shape).job.program
    assert counter.live_bytes == cache_bytes(program, 32)


@pytest.mark.parametrize("run", ["encode", "decode"])
def test_a_processor_uses_the_memory_of_stores_again(run: str) -> None:
    """Within a level of the network a new store gets the memory of one that is gone."""
    vae, settings = from_module(random_module(layers=3)), Settings(placement="device")
    x = random_video(17, 64, 64) if run == "encode" else random_latents(5, 8, 8)
    made, taken = set(), 0
    take = Reused.take

    def noted(self: Reused, store: int, shape: tuple[int, ...]) -> torch.Tensor:
        nonlocal taken
        found = take(self, store, shape)
        made.update(self._blocks)
        taken += 1
        return found

    with patch.object(Reused, "take", noted):
        getattr(vae, run)(x, settings)
    assert 0 < len(made) <= taken / 2


def squared_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).square().sum())


@pytest.mark.parametrize("tile_px", [16, None])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_lose_no_more_than_diffusers_does(dtype: torch.dtype, tile_px) -> None:
    """Errors are pooled over a dozen clips, since on one small clip they scatter by a tenth."""
    shape = {"channels": (16, 16, 32, 32), "groups": 8}
    narrow, wide = random_module(dtype, **shape), random_module(**shape)
    wide.load_state_dict({name: value.float() for name, value in narrow.state_dict().items()})
    settings = {"layout": "diffusers", "tile_px": tile_px}
    ours = theirs = 0.0
    for frames, height in product((5, 8, 9, 12), (32, 40, 48)):
        video = random_video(frames, height, 40, dtype)
        exact = diffusers_encode(wide, video.float(), 8)
        theirs += squared_error(diffusers_encode(narrow, video, 8), exact)
        ours += squared_error(encode_moments(narrow, video, **settings), exact)
    assert ours**0.5 <= 1.05 * theirs**0.5
    latents = random_latents(3, 4, 5, dtype)
    exact = diffusers_decode(wide, latents.float(), 8)
    theirs = squared_error(diffusers_decode(narrow, latents, 8), exact)
    ours = squared_error(decode_frames(narrow, latents, **settings), exact)
    assert ours**0.5 <= 1.05 * theirs**0.5


def test_statistics_of_large_half_precision_inputs_do_not_overflow() -> None:
    wide = random_module()
    video = 1e3 * random_video(9, 48, 64)
    expected = encode_moments(wide, video, tile_px=24)
    found = encode_moments(random_module().half(), video.half(), tile_px=24)
    assert found.isfinite().all()
    assert relative_error(found.float(), expected) < 0.02


def test_progress_rises_to_a_total_that_was_true_from_the_start() -> None:
    seen = []
    vae = from_module(random_module())
    vae.encode(random_video(17, 40, 24), Settings(tile_px=16, on_progress=seen.append))
    done = [p.done_operations for p in seen]
    assert done == sorted(set(done))
    assert {p.total_operations for p in seen} == {done[-1]}
    assert [p.chunk_index for p in seen] == sorted(p.chunk_index for p in seen)
    assert {p.chunks for p in seen} == {2}


class Stop(BaseException):
    """What a host raises to interrupt a run."""


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_callback_that_raises_stops_within_a_tile_and_leaves_nothing(after: int) -> None:
    calls = 0

    def stop(_progress) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Stop

    vae, video = from_module(random_module()), random_video(17, 40, 24)
    counter = DeviceBytes("cpu")
    with counter, pytest.raises(Stop):
        vae.encode(video, Settings(tile_px=16, on_progress=stop))
    assert calls == after
    gc.collect()
    assert counter.live_bytes == 0


def test_an_abandoned_stream_frees_its_caches() -> None:
    vae = from_module(random_module())
    counter = DeviceBytes("cpu")
    with counter:
        stream = vae.decode_stream(random_latents(9, 4, 4))
        next(stream)
        stream.close()
    del stream
    gc.collect()
    assert counter.live_bytes == 0


def test_results_carry_no_gradient_even_when_weights_do() -> None:
    module = random_module().requires_grad_(True)
    found = decode_frames(module, random_latents(2, 3, 3))
    assert not found.requires_grad
    found += 1  # an inference tensor would refuse to be changed here


def test_streamed_frames_are_those_of_decode() -> None:
    module, latents = random_module(), random_latents(6, 3, 5)
    streamed = torch.cat(list(from_module(module).decode_stream(latents)), dim=2)
    assert torch.equal(streamed, decode_frames(module, latents))
