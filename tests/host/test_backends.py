"""Does a CUDA build of torch take cuDNN for every convolution that the engine hands over?

The engine runs on `meta`, its convolutions are written down, and the host's own torch, a CUDA
build, says for each of them which backend it would choose. No card is needed: all that it asks the
driver is how capable the card is, in bfloat16, and `DRIVER` answers that in the driver's place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import card  # noqa: F401, meta has its kernels from here on
import pytest
import torch
from benchmarks.counting import CONVOLUTIONS
from networks import full_size_module
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings, from_module

pytestmark = pytest.mark.host

DRIVER = """
#include <string.h>
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }
int cudaGetDeviceProperties_v2(char *properties, int device) {
    memset(properties, 0, 1008);
    *(int *)(properties + 360) = 8;  /* major */
    return 0;
}
"""

ASK = """
import json, sys
import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

fake_tensor.init_gpu_context = lambda device: None  # there is no card to be made ready
calls = json.load(sys.stdin)
found = {}
with FakeTensorMode():
    for name in ("float16", "bfloat16"):
        for x, weight, stride in calls:
            made = [torch.empty_strided(*one, dtype=getattr(torch, name), device="cuda")
                    for one in (x, weight)]
            backend = torch._C._select_conv_backend(
                *made, None, stride, [0] * 3, [1] * 3, False, [0] * 3, 1).name
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


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that answers for a driver."""
    compiler, folder = shutil.which("cc"), tmp_path_factory.mktemp("driver")
    if compiler is None:
        pytest.skip("there is no compiler to make a stand-in for the driver with")
    (folder / "driver.c").write_text(DRIVER)
    made = folder / "driver.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, folder / "driver.c"], check=True)
    return made


def asked(calls: list, driver: Path) -> dict:
    """The backends of the host's torch, and the calls that go to them, by dtype."""
    done = subprocess.run(
        [os.environ.get("COMFYUI_PYTHON", "python"), "-c", ASK],
        input=json.dumps(calls),
        env={**os.environ, "LD_PRELOAD": str(driver)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not _has_cudnn():
        pytest.skip("the host's torch is no CUDA build")
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout)["found"]


@cache
def _has_cudnn() -> bool:
    ask = "import sys, torch; sys.exit(torch.backends.cudnn.version() is None)"
    python = os.environ.get("COMFYUI_PYTHON", "python")
    return subprocess.run([python, "-c", ask], check=False).returncode == 0


def test_every_convolution_goes_to_cudnn(driver, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = recorded(monkeypatch)
    assert len(calls) > 30
    found = asked(calls, driver)
    assert set(found) == {"float16", "bfloat16"}
    assert all(set(backends) == {"Cudnn"} for backends in found.values())


def test_the_same_tensors_in_the_usual_layout_would_not(driver) -> None:
    x, weight = torch.empty(1, 128, 5, 40, 40), torch.empty(128, 128, 3, 3, 3)
    calls = [((x.shape, x.stride()), (weight.shape, weight.stride()), (1, 1, 1))]
    for backends in asked(calls, driver).values():
        assert set(backends) <= {"SlowDilated3d", "Cudnn"}  # which one is the release's affair
