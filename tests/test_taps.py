"""Does a processor convolve tap by tap as it would at once, packing no more than it has to?"""

from __future__ import annotations

from collections import Counter
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from contract import assert_close
from device_bytes import DeviceBytes
from networks import NARROW, random_latents
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module
from vae_core.geometry.region import Extent
from vae_core.running import taps
from vae_core.running.stores import Room
from vae_core.running.taps import Ends

pytestmark = pytest.mark.skipif(
    not taps.serve(torch.device("cpu"), torch.float32), reason="torch without oneDNN"
)


def with_ends(clip: torch.Tensor, ends: Ends) -> torch.Tensor:
    """A convolution's input: a clip between frames that are not of it."""
    before = clip[:, :, :1].repeat(1, 1, ends.before, 1, 1) * (not ends.zeros)
    x = torch.cat((before, clip, clip[:, :, -1:].repeat(1, 1, ends.after, 1, 1)), 2)
    return x.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("frames", "kernel_t"), [*product((1, 2, 3, 6), (1, 2, 3))])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 1, 1), (1, 2, 2)])
def test_taps_add_up_to_the_convolution(frames, kernel_t, batch, strides) -> None:
    torch.manual_seed(0)
    clip, bias = torch.randn(batch, 5, frames, 6, 7), torch.randn(4)
    weight = torch.randn(4, 5, kernel_t, 3, 3)
    for before, after, zeros in product(range(kernel_t), range(kernel_t), (True, False)):
        ends = Ends(before, after, zeros)
        x = with_ends(clip, ends)
        if not kernel_t - 1 <= before + after < x.shape[2] or before + after > kernel_t - 1:
            continue
        packed = taps.packed(weight, Extent(*x.shape[2:]), strides, Room(x.dtype, x.device))
        for given in (bias, None):
            exact = F.conv3d(
                x.double(), weight.double(), None if given is None else given.double(), strides
            )
            assert_close(packed.convolve(x, given, strides, ends), exact.float(), 1e-6)


class Packing(TorchDispatchMode):
    """Counts the bytes of weights that are packed inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.packed_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket is torch.ops.mkldnn._reorder_convolution_weight:
            self.packed_bytes += args[0].numel() * args[0].itemsize
        return func(*args, **(kwargs or {}))


def network(family: str):
    """A narrow one of a family, and latents of three chunks."""
    vae = from_module(NARROW[family](torch.float32))
    return vae, random_latents(7, 3, 4, channels=vae.latent_channels)


def packed_by_chunk(vae, latents: torch.Tensor, settings: Settings) -> list[int]:
    """Bytes of weights that each chunk packs."""
    chunks, found = vae.decode_stream(latents, settings), []
    while True:
        with Packing() as counter:
            made = next(chunks, None)
        if made is None:
            return found
        found.append(counter.packed_bytes)


def in_chunks(vae, **more) -> Settings:
    """Chunks of two latent frames."""
    return Settings(chunk_frames=2 * vae.ratios.frames, **more)


IN_CHUNKS = [family for family in NARROW if family != "hunyuan"]
"""The statistics of HunyuanVideo 1.0 are those of a clip, which is one chunk."""


@pytest.mark.parametrize("family", IN_CHUNKS)
def test_no_weight_is_packed_for_a_second_chunk_where_there_is_room(family: str) -> None:
    vae, latents = network(family)
    first, *others = packed_by_chunk(vae, latents, in_chunks(vae))
    assert first > 0
    assert len(others) >= 2
    assert not any(others)


@pytest.mark.parametrize("family", IN_CHUNKS)
def test_weights_that_are_kept_count_and_are_not_kept_without_room(family: str) -> None:
    vae, latents = network(family)
    roomy = vae.plan_decode(latents.shape, in_chunks(vae))
    tight = in_chunks(vae, budget_bytes=roomy.peak_bytes - 1)
    assert roomy.kept_bytes > 0
    assert vae.plan_decode(latents.shape, tight).kept_bytes == 0
    results = []
    for settings in (in_chunks(vae), tight):
        plan = vae.plan_decode(latents.shape, settings)
        with DeviceBytes("cpu") as counter:
            results.append(vae.decode(latents, settings))
        assert counter.peak_bytes - results[-1].nbytes <= plan.peak_bytes
        assert counter.live_bytes == results[-1].nbytes
    assert min(packed_by_chunk(vae, latents, tight)) > 0
    assert_close(*results, 1e-5)


@pytest.mark.parametrize("family", NARROW)
def test_a_weight_that_was_replaced_is_seen_by_the_next_run(family: str) -> None:
    vae, latents = network(family)
    before = vae.decode(latents, in_chunks(vae))
    state = vae.module.state_dict()
    layouts = Counter(value.stride() for value in state.values())
    vae.module.load_state_dict({key: value * 0.9 for key, value in state.items()})
    after = vae.decode(latents, in_chunks(vae))
    assert (after - before).abs().max() > 1e-3
    fresh = from_module(NARROW[family](torch.float32))
    fresh.module.load_state_dict(vae.module.state_dict())
    assert torch.equal(after, fresh.decode(latents, in_chunks(fresh)))
    assert layouts == Counter(value.stride() for value in vae.module.state_dict().values())


def test_a_tap_that_sees_only_zeros_is_not_packed() -> None:
    """Of a clip of two latent frames none sees the oldest of three."""
    vae = from_module(NARROW["wan22"](torch.float32))
    packed = []
    for frames in (2, 3):
        with Packing() as counter:
            vae.decode(random_latents(frames, 3, 4, channels=vae.latent_channels))
        packed.append(counter.packed_bytes)
    assert packed[0] < packed[1]


def test_a_torch_that_has_other_operations_of_one_dnn_convolves_as_it_is(monkeypatch) -> None:
    taps._tried.__wrapped__.cache_clear()
    for lacking in ({}, {"_reorder_convolution_weight": lambda weight: weight}):
        monkeypatch.setattr(taps, "_ONE_DNN", SimpleNamespace(**lacking))
        assert not taps.serve(torch.device("cpu"), torch.float32)
        taps._tried.__wrapped__.cache_clear()
    monkeypatch.undo()
    assert taps.serve(torch.device("cpu"), torch.float32)
