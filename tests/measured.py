"""What does a run take of a device that nobody has?

`meta` plays it inside `FakeTensorMode`, and bytes are counted at the dispatcher.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from device_bytes import DeviceBytes
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, VideoVAE
from vae_core.planning.plan import Plan


def measured_and_plan(
    make: Callable[[], VideoVAE],
    kind: str,
    shape: tuple[int, int, int],
    settings: Settings,
    batch: int = 1,
) -> tuple[int, Plan]:
    """Peak bytes on `meta` of a run for `shape` (sample frames, height, width), and its plan.

    make: gives the VAE, whose device is `meta`; called where no tensor has memory.
    """
    frames, height, width = shape
    with FakeTensorMode():
        vae = make()
        if kind == "encode":
            x = torch.empty(batch, 3, frames, height, width, dtype=vae.dtype)
            plan, run = vae.plan_encode(x.shape, settings), vae.encode
        else:
            px, count = vae.ratios.px, vae.ratios.latent_frames(frames)
            sides = count, height // px, width // px
            x = torch.empty(batch, vae.latent_channels, *sides, dtype=vae.dtype)
            plan, run = vae.plan_decode(x.shape, settings), vae.decode
        with DeviceBytes("meta") as counter:
            run(x, settings)
    return counter.peak_bytes, plan
