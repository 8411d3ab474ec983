"""Is what a device's libraries allocate beside convolutions within the projection?

`meta` plays the device, and a counter adds for each convolution what a library would take: nothing,
as much as the input and the result, or a copy of the input for every tap (im2col).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from benchmarks.counting import CONVOLUTIONS, DEVICE, Counter
from benchmarks.repeats import each_kind_once
from networks import full_size_module
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, from_module
from vae_core.planning.memory import SLACK_BYTES
from vae_core.planning.workspaces import CONTIGUOUS, NOTHING, ConvClass, Workspaces, unrolled
from vae_core.running import machines


@dataclass(frozen=True, slots=True)
class Unrolled(Workspaces):
    """A copy of the input for every tap."""

    def bytes(self, kind: ConvClass, input_bytes: int, output_bytes: int) -> int:
        return unrolled(kind).bytes(input_bytes, output_bytes)


LIBRARIES = {
    "channels last": Workspaces(NOTHING),
    "contiguous": Workspaces(CONTIGUOUS),
    "im2col": Unrolled(),
}


class WithLibraries(Counter):
    """Counts what `table` says of each convolution while it runs."""

    def __init__(self, table: Workspaces) -> None:
        super().__init__()
        self.table = table

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if func.overloadpacket in CONVOLUTIONS and args[0].device.type == DEVICE:
            x, weight, *_ = args
            to, of, *taps = weight.shape
            taken = self.table.bytes(ConvClass(of, to, tuple(taps)), x.nbytes, out.nbytes)
            self.peak_bytes = max(self.peak_bytes, self.live_bytes + taken)
        return out


def check(
    kind: str, shape, library: str, placement: str, *, far: bool, every_tile: bool = True
) -> None:
    """What a run of the full-size network takes of the device is within its plan, and near it.

    shape: (sample frames, height, width). far: whether weights are copied for every step.
    """
    (frames, height, width), dtype, table = shape, torch.bfloat16, LIBRARIES[library]
    settings, machine_for = Settings(tile_px=None, placement=placement), machines.machine_for
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode():
        patch.setattr(
            machines, "machine_for", lambda *a: replace(machine_for(*a), workspaces=table)
        )
        module = full_size_module(torch.float32 if far else dtype)
        vae = from_module(module, dtype=dtype, device="meta")
        sizes = (3, frames, height, width)
        if kind == "decode":
            sizes = (16, (frames - 1) // 4 + 1, height // 8, width // 8)
        x = torch.empty(1, *sizes, dtype=dtype)
        plan = (vae.plan_encode if kind == "encode" else vae.plan_decode)(x.shape, settings)
        counter = WithLibraries(table)
        with counter, nullcontext() if every_tile else each_kind_once(counter):
            (vae.encode if kind == "encode" else vae.decode)(x, settings)
    measured, projected = counter.peak_bytes, plan.peak_bytes
    assert measured <= projected
    assert projected - SLACK_BYTES <= 1.25 * measured


SMALL = [
    ("encode", "channels last", "device", True),
    ("decode", "channels last", "host", False),
    ("encode", "contiguous", "caches-on-host", False),
    ("decode", "contiguous", "device", True),
    ("encode", "im2col", "host", True),
    ("decode", "im2col", "caches-on-host", False),
]


@pytest.mark.parametrize(("kind", "library", "placement", "far"), SMALL)
def test_projections_count_what_libraries_take(kind, library, placement, far) -> None:
    check(kind, (9, 64, 96), library, placement, far=far)


@pytest.mark.slow
@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
@pytest.mark.parametrize("placement", ["device", "caches-on-host", "host"])
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["encode", "decode"])
@pytest.mark.parametrize("frames", [17, 49])
def test_projections_count_what_libraries_take_of_real_clips(
    frames, kind, library, placement, far
) -> None:
    check(kind, (frames, 480, 720), library, placement, far=far, every_tile=False)
