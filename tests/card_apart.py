"""A card with memory of its own, played by the processor.

What lives on it and what is away are told apart by where memory was asked for, so that every copy
happens and the numbers are real.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from diffusers import AutoencoderKLWan
from networks import unmade, unmade_module
from test_budget_seedvr2 import WIDTHS
from test_budget_wan import OF_2_2, WIDTH

from vae_core.families.seedvr2_network import SeedVR2VAE
from vae_core.planning.machine import Machine
from vae_core.running import residence, stores
from vae_core.running.transfers import Transfers
from vae_core.settings import Place

CARD = Machine(apart=True, workspace_bytes=256 * 2**20)


UNMADE = {
    "cogvideox": lambda: unmade_module(torch.float32, (16, 16, 32, 32), groups=8, layers=1),
    "wan": partial(unmade, partial(AutoencoderKLWan, base_dim=WIDTH), torch.float32),
    "wan22": partial(unmade, partial(AutoencoderKLWan, base_dim=WIDTH, **OF_2_2), torch.float32),
    "seedvr2": partial(
        unmade, partial(SeedVR2VAE, block_out_channels=WIDTHS, layers_per_block=1), torch.float32
    ),
}
"""Narrow networks without memory, to be made and run inside one `FakeTensorMode`."""


class Away:
    """Knows the storages that are away from the played card."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.finalize] = {}

    def add(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = weakref.finalize(storage, self._known.pop, key, None)
        return x

    def __contains__(self, x: torch.Tensor) -> bool:
        return x.untyped_storage()._cdata in self._known


@contextmanager
def card_apart() -> Iterator[Away]:
    """Inside the block plans are made for a card, and followed as on one."""
    away, allocate = Away(), stores.allocate

    def told(shape, dtype, device, place, pinned=None):
        made = allocate(shape, dtype, device, place, pinned)
        return made if place is Place.DEVICE else away.add(made)

    def gone(self, tensor):
        return away.add(tensor.clone(memory_format=torch.channels_last_3d))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vae_core.running.machines.machine_for", lambda *_: CARD)
        patch.setattr(stores, "allocate", told)
        patch.setattr(residence, "allocate", told)
        patch.setattr(residence.Residence, "is_near", lambda self, x: x not in away)
        patch.setattr(residence.Residence, "on_host", gone)
        patch.setattr(Transfers, "is_far", lambda self, x: x in away)
        yield away
