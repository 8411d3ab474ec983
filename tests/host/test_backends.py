"""Does a CUDA build of torch take cuDNN for every convolution that the engine hands over?

The engine runs on `meta`, its convolutions are written down, and the host's own torch, a CUDA
build, says for each of them which backend it would choose. No card is needed: in bfloat16 it asks
the driver, as the last thing before it takes cuDNN, and fails where there is none.
"""

from __future__ import annotations

import json
import os
import subprocess

import card  # noqa: F401, meta has its kernels from here on
import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from networks import full_size_module
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module

pytestmark = pytest.mark.host

ASK = """
import json, sys
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

calls = json.load(sys.stdin)
found = {}
with FakeTensorMode():
    for name in ("float16", "bfloat16"):
        for x, weight, stride in calls:
            made = [torch.empty_strided(*one, dtype=getattr(torch, name), device="cuda")
                    for one in (x, weight)]
            try:
                backend = torch._C._select_conv_backend(
                    *made, None, stride, [0] * 3, [1] * 3, False, [0] * 3, 1).name
            except RuntimeError as error:
                backend = "asks the driver" if "driver" in str(error) else str(error)
            found.setdefault(name, {}).setdefault(backend, []).append([x[0], weight[0]])
print(json.dumps({"cudnn": torch.backends.cudnn.version(), "found": found}))
"""


class Calls(TorchDispatchMode):
    """The different convolutions of a run: (size and strides of input, of weight, strides)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in CONVOLUTIONS:
            kwargs = kwargs or {}
            x, weight = ((tuple(t.shape), tuple(t.stride())) for t in args[:2])
            stride = args[3] if len(args) > 3 else kwargs.get("stride", (1, 1, 1))
            self.found.add((x, weight, tuple(stride)))
        return func(*args, **(kwargs or {}))


def recorded(monkeypatch: pytest.MonkeyPatch) -> list:
    monkeypatch.setattr("vae_core.vae.check_values", lambda *_: None)
    monkeypatch.setattr("vae_core.running.execute.check_result", lambda *_: None)
    dtype, settings = torch.bfloat16, Settings(placement="device", tile_px=64)
    with torch.device("meta"):
        vae = from_module(full_size_module(dtype), device="meta")
        video = torch.empty(1, 3, 17, 96, 160, dtype=dtype)
        latents = torch.empty(1, 16, 5, 12, 20, dtype=dtype)
    with torch.inference_mode(), Calls() as calls:
        vae.encode(video, settings)
        vae.decode(latents, settings)
    return sorted(calls.found)


def asked(calls: list) -> dict:
    done = subprocess.run(
        [os.environ.get("COMFYUI_PYTHON", "python"), "-c", ASK],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or json.loads(done.stdout)["cudnn"] is None:
        pytest.skip(f"the host's torch is no CUDA build: {done.stderr[-200:]}")
    return json.loads(done.stdout)["found"]


def test_every_convolution_goes_to_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch)
    assert len(calls) > 30
    found = asked(calls)
    assert set(found["float16"]) == {"Cudnn"}
    assert set(found["bfloat16"]) <= {"Cudnn", "asks the driver"}


def test_the_same_tensors_in_the_usual_layout_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.empty(1, 128, 5, 40, 40), torch.empty(128, 128, 3, 3, 3)
    calls = [((x.shape, x.stride()), (weight.shape, weight.stride()), (1, 1, 1))]
    for backends in asked(calls).values():
        assert set(backends) <= {"SlowDilated3d", "Cudnn"}  # which one is the release's affair
