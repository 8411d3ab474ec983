"""What does ComfyUI core's own class take, when a ComfyUI is at hand?

1. COMFYUI_PATH names a ComfyUI folder, COMFYUI_PYTHON an interpreter with its requirements.
2. This file runs in that interpreter as a script; it imports core's class, counts it with the same
   `Counter`, and prints one line of JSON.
3. Without both variables the rows are left out, and one line says so.

    COMFYUI_PYTHON core.py encode 1 3 49 480 720
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def missing() -> str | None:
    """Why core's class cannot be measured; None where it can."""
    absent = [name for name in ("COMFYUI_PATH", "COMFYUI_PYTHON") if not os.environ.get(name)]
    if not absent:
        return None
    return f"left out: ComfyUI core; set {' and '.join(absent)} (see tests/benchmarks/core.py)"


def count_elsewhere(shape: tuple[int, ...], kind: str):
    """The `Count` of core's class, from its own interpreter; `RuntimeError` with its last line
    where it fails.
    """
    from .counting import Count

    command = [os.environ["COMFYUI_PYTHON"], __file__, kind, *map(str, shape)]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return Count(*json.loads(done.stdout.splitlines()[-1]))


def _load_class():
    """Core's AutoencoderKLCogVideoX; core reads the command line when it is imported."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv[1:] = ["--cpu"]
    import comfy.options  # noqa: TID251

    comfy.options.enable_args_parsing()
    from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX  # noqa: TID251

    return AutoencoderKLCogVideoX


def main() -> None:
    """Counts one run and prints [peak bytes, operations, moved bytes]."""
    import torch

    from benchmarks.counting import DEVICE, count

    kind, shape = sys.argv[1], tuple(map(int, sys.argv[2:]))
    network = _load_class()

    def prepare():
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(DEVICE):
            module = network().eval().requires_grad_(False)
        run = module.encode if kind == "encode" else module.decode
        return lambda _: run(torch.empty(shape, dtype=torch.bfloat16, device=DEVICE))

    found = count(prepare)
    print(json.dumps([found.peak_bytes, found.operations, found.moved_bytes]))


if __name__ == "__main__":
    main()
