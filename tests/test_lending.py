"""Are weights that a host keeps itself borrowed once a step, given back, and right meanwhile?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import random_latents, random_module
from pack import part
from torch import nn

from vae_core import Progress, Settings, from_module
from vae_core.running import taps
from vae_core.running.weights import Lent

LATENTS = random_latents(7, 4, 6)
CPU = torch.device("cpu")


class LendingHost:
    """A host whose convolutions hold nothing but NaN; what it lends is spoilt once it is back.

    out: modules that are lent now. times: how often each was lent.
    """

    def __init__(self, module: nn.Module) -> None:
        self.kept: dict[nn.Module, Lent] = {}
        self.out: set[nn.Module] = set()
        self.most_out = 0
        self.times: dict[nn.Module, int] = {}
        for part_of in module.modules():
            if isinstance(part_of, nn.Conv3d):
                bias = part_of.bias
                self.kept[part_of] = (
                    part_of.weight.clone(),
                    None if bias is None else bias.clone(),
                )
                for parameter in part_of.parameters():
                    parameter.fill_(torch.nan)

    def __call__(self, module: nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
        return self.loan(module, dtype) if module in self.kept else None

    @contextmanager
    def loan(self, module: nn.Module, dtype: torch.dtype) -> Iterator[Lent]:
        assert module not in self.out
        self.out.add(module)
        self.most_out = max(self.most_out, len(self.out))
        self.times[module] = self.times.get(module, 0) + 1
        weight, bias = self.kept[module]
        page = weight.to(dtype, copy=True)
        try:
            yield page, None if bias is None else bias.to(dtype)
        finally:
            page.fill_(torch.nan)
            self.out.remove(module)


@pytest.mark.parametrize("settings", [Settings(), Settings(tile_px=16)], ids=["whole", "tiles"])
def test_lent_weights_give_the_same_pixels_and_are_lent_once_a_chunk(settings: Settings):
    # those that a processor packs for all chunks, once a run
    packed = 1 if taps.serve(torch.device("cpu"), torch.float32) else 3
    module = random_module()
    expected = from_module(module).decode(LATENTS, settings)
    host = LendingHost(module)
    found = replace(from_module(module), lender=host).decode(LATENTS, settings)
    assert torch.equal(found, expected)
    assert not host.out
    assert set(host.times.values()) == {packed, 3}  # chunks
    assert 1 < host.most_out <= 4  # of one step: its convolution, a shortcut, two of a modulation


def test_a_stream_borrows_too():
    module = random_module()
    video = torch.rand(1, 3, 13, 32, 48) * 2 - 1
    expected = torch.cat(list(from_module(module).encode_stream(iter(video.unbind(2)))), dim=2)
    host = LendingHost(module)
    engine = replace(from_module(module), lender=host)
    found = torch.cat(list(engine.encode_stream(iter(video.unbind(2)))), dim=2)
    assert torch.equal(found, expected)
    assert not host.out


@pytest.mark.parametrize("after", [0, 1, 7, 40])
def test_an_interrupted_run_gives_back_what_was_lent(after: int):
    module = random_module()
    host = LendingHost(module)
    told = 0

    def stop(progress: Progress) -> None:
        nonlocal told
        told += 1
        if told > after:
            raise KeyboardInterrupt

    engine = replace(from_module(module), lender=host)
    with pytest.raises(KeyboardInterrupt):
        engine.decode(LATENTS, Settings(on_progress=stop))
    assert host.times
    assert not host.out


class Operations:
    """Core's two functions over one buffer, which each weight that has no page comes through."""

    def __init__(self) -> None:
        self.buffer = torch.zeros(64)
        self.unpinned: list[nn.Module] = []

    def cast_bias_weight(self, module: Any, *_: Any, offloadable: bool) -> Any:
        assert offloadable
        if module.paged:
            return module.weight, None, (None, CPU, None)
        if module.here:
            return module.weight, None, (None, None, None)
        weight = self.buffer[: module.weight.numel()].view(module.weight.shape)
        weight.copy_(module.weight)
        return weight, None, ("a stream", module.weight, None)

    def uncast_bias_weight(self, module: Any, weight: Any, bias: Any, ticket: Any) -> None:
        self.unpinned.append(module)


def a_layer(value: float, **how: bool) -> Any:
    """One of core's layers; paged: it has a page. here: it is on the card as it lies."""
    layer = nn.Conv1d(1, 1, 3, bias=False).requires_grad_(False)
    layer.weight.fill_(value)
    layer.comfy_cast_weights, layer.weight_function, layer.bias_function = True, [], []
    layer.paged, layer.here = how.get("paged", False), how.get("here", False)
    layer._v = "pages"
    return layer


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    found = Operations()
    monkeypatch.setattr(part("nodes.bridge.host"), "operations", lambda: found)
    return found


def test_what_comes_through_a_buffer_outlives_its_next_use(operations: Operations):
    lender = part("nodes.bridge.lending").Lender()
    layers = [a_layer(1.0), a_layer(2.0), a_layer(3.0)]
    loans = [lender(layer, torch.float32, CPU) for layer in layers]
    held = [loan.__enter__()[0] for loan in loans]
    assert [float(weight.mean()) for weight in held] == [1.0, 2.0, 3.0]
    assert operations.unpinned == layers  # at once: the buffer is the host's again
    for loan in loans:
        loan.__exit__(None, None, None)
    assert operations.unpinned == layers
    assert lender.passing_bytes == 3 * 3 * 4


def test_a_page_is_held_as_it_is_until_the_step_is_over(operations: Operations):
    lender, layer = part("nodes.bridge.lending").Lender(), a_layer(1.0, paged=True)
    with lender(layer, torch.float32, CPU) as (weight, _):
        assert weight is layer.weight
        assert not operations.unpinned
    assert operations.unpinned == [layer]
    assert lender.passing_bytes == 0


@pytest.mark.parametrize("change", ["cast", "functions"])
def test_a_layer_is_read_as_the_hosts_own_forward_reads_it(operations: Operations, change: str):
    lender, layer = part("nodes.bridge.lending").Lender(), a_layer(1.0, here=True)
    layer.comfy_cast_weights = False
    assert lender(layer, torch.float32, CPU) is None
    if change == "cast":
        layer.comfy_cast_weights = True
    else:
        layer.bias_function = [torch.neg]
    assert lender(layer, torch.float32, CPU) is not None


def test_layers_of_other_makers_and_older_hosts_are_read_by_the_engine(monkeypatch):
    lender, host = part("nodes.bridge.lending").Lender(), part("nodes.bridge.host")
    monkeypatch.setattr(host, "operations", Operations)
    assert lender(nn.Conv1d(1, 1, 3), torch.float32, CPU) is None
    assert lender(nn.GroupNorm(1, 4, affine=False), torch.float32, CPU) is None
    for older in (None, SimpleNamespace(cast_bias_weight=None)):
        monkeypatch.setattr(host, "operations", lambda older=older: older)
        assert lender(a_layer(1.0), torch.float32, CPU) is None
