"""What does ComfyUI core's own class take, when a ComfyUI is at hand?

1. COMFYUI_PATH names a ComfyUI folder, COMFYUI_PYTHON an interpreter with its requirements.
2. This file runs in that interpreter as a script; it imports core's class, counts it with the same
   `Counter`, and prints one line of JSON. With `serve` it keeps one network and runs it for every
   line that it is sent, so that it can take turns with others.
3. Without both variables the rows are left out, and one line says so.

    COMFYUI_PYTHON core.py count wan encode untiled 1 3 49 480 720
    COMFYUI_PYTHON core.py serve wan encode untiled WEIGHTS
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

PLACES = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
"""Where this file's own imports and the engine are found."""


@dataclass(frozen=True, slots=True)
class Task:
    """family: whose class. kind: encode or decode. tiled: as core's tiled nodes do it."""

    family: str
    kind: str
    tiled: bool

    @property
    def words(self) -> tuple[str, ...]:
        """As the command line has it."""
        return self.family, self.kind, "tiled" if self.tiled else "untiled"


def missing() -> str | None:
    """Why core's class cannot be measured; None where it can."""
    absent = [name for name in ("COMFYUI_PATH", "COMFYUI_PYTHON") if not os.environ.get(name)]
    if not absent:
        return None
    return f"left out: ComfyUI core; set {' and '.join(absent)} (see tests/benchmarks/core.py)"


def command(*words: str) -> tuple[list[str], dict[str, str]]:
    """How this file is started in core's interpreter: arguments and environment."""
    return [os.environ["COMFYUI_PYTHON"], __file__, *words], os.environ | {"PYTHONPATH": PLACES}


def count_elsewhere(task: Task, shape: tuple[int, ...]):
    """The `Count` of core's class, from its own interpreter; `RuntimeError` with its last line
    where it fails.
    """
    from .counting import Count

    arguments, environment = command("count", *task.words, *map(str, shape))
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return Count(*json.loads(done.stdout.splitlines()[-1]))


# What follows runs in core's interpreter.


def _start_core() -> None:
    """Core reads the command line when it is imported."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv[1:] = ["--cpu", "--use-pytorch-cross-attention"]
    import comfy.options  # noqa: TID251

    comfy.options.enable_args_parsing()
    import comfy.ops  # noqa: TID251


def _play_card() -> None:
    """Core asks the device for its memory before it cuts clips of LTX."""
    from comfy import model_management  # noqa: TID251

    model_management.get_total_memory = lambda *_, **__: 24 * 2**30


_IN_TIME = [False, True, True]


def _cogvideox():
    from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX  # noqa: TID251

    return AutoencoderKLCogVideoX()


def _wan():
    from comfy.ldm.wan.vae import WanVAE  # noqa: TID251

    return WanVAE(dim=96, z_dim=16, temperal_downsample=_IN_TIME)


def _wan_2_2():
    from comfy.ldm.wan.vae2_2 import WanVAE  # noqa: TID251

    return WanVAE(dim=160, dec_dim=256, z_dim=48, temperal_downsample=_IN_TIME)


def _hunyuan_1_0():
    from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: TID251

    numbers = {
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "in_channels": 3,
        "out_ch": 3,
        "num_res_blocks": 2,
        "z_channels": 16,
        "double_z": True,
        "attn_resolutions": [],
        "resolution": 256,
        "conv3d": True,
        "time_compress": 4,
    }
    return AutoencoderKL(ddconfig=numbers, embed_dim=16)


def _hunyuan_1_5():
    from comfy.ldm.models.autoencoder import AutoencodingEngine  # noqa: TID251

    numbers = {
        "block_out_channels": [128, 256, 512, 1024, 1024],
        "in_channels": 3,
        "out_channels": 3,
        "num_res_blocks": 2,
        "ffactor_spatial": 16,
        "ffactor_temporal": 4,
        "z_channels": 32,
    }
    place = "comfy.ldm.hunyuan_video.vae_refiner."
    return AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
        encoder_config={"target": place + "Encoder", "params": numbers},
        decoder_config={"target": place + "Decoder", "params": numbers},
    )


def _seedvr2():
    from comfy.ldm.seedvr.vae import VideoAutoencoderKLWrapper  # noqa: TID251

    return VideoAutoencoderKLWrapper()


def _mochi():
    from comfy.ldm.genmo.vae.model import VideoVAE  # noqa: TID251

    return VideoVAE()


def _ltx(narrowed: int = 1):
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE  # noqa: TID251

    config = VideoVAE.get_default_config(None, version=2) | {"timestep_conditioning": False}
    config["decoder_base_channels"] = 128 // narrowed
    # Of the encoder all but its first level, which diffusers' class has at one width.
    config["encoder_blocks"][1] = ["compress_space_res", {"multiplier": 2 // narrowed}]
    return VideoVAE(config=config)


NETWORKS: dict[str, Callable[[], object]] = {
    "cogvideox": _cogvideox,
    "wan": _wan,
    "wan22": _wan_2_2,
    "hunyuan": _hunyuan_1_0,
    "hunyuan15": _hunyuan_1_5,
    "seedvr2": _seedvr2,
    "mochi": _mochi,
    "ltx": _ltx,
}
"""Core's full-size networks."""

TIMED = NETWORKS | {"ltx": lambda: _ltx(narrowed=2)}
"""Those that `families` has for timing."""


def _load(module, family: str, weights: str) -> None:
    """Core's network takes the weights of diffusers' from the file, where they stay."""
    import torch

    from vae_core.families.identify import KEYS

    stored = torch.load(weights, mmap=True)
    own = module.state_dict()
    names = next(keys for keys in KEYS if keys.family == family).translate(own)
    # what is a matrix to one may be a convolution of single elements to the other
    state = {name: stored[theirs].view(own[name].shape) for name, theirs in names.items()}
    lacks = module.load_state_dict(state, strict=False, assign=True).missing_keys
    if any(".temb_proj." not in name for name in lacks):  # which HunyuanVideo's blocks never use
        raise RuntimeError(f"no weights for {', '.join(lacks)}")


def _runner(module, kind: str, device) -> Callable:
    """What takes a clip, or a piece of one, through core's network, which is on `device`."""
    if hasattr(module, "decode_"):  # SeedVR2: the other one takes latents as models have them
        module.device, decode = device, module.decode_
    else:
        decode = module.decode
    if getattr(module, "comfy_has_chunked_io", False):  # LTX reads and writes where clips lie
        if kind == "encode":
            return lambda x: module.encode(x, device=device)
        return lambda x: decode(x.to(device), output_buffer=_buffer(module, x))
    run = module.encode if kind == "encode" else decode
    return lambda x: run(x.to(device))


def _buffer(module, latents):
    """Where core's node has frames written, in host memory."""
    import torch

    return torch.empty(module.decode_output_shape(latents.shape), dtype=latents.dtype, device="cpu")


def _in_tiles(run: Callable, kind: str) -> Callable:
    """What does to a clip in pieces what `run` does to one, as core's tiled nodes do."""
    from comfy.utils import tiled_scale_multidim  # noqa: TID251

    sizes = _ENCODE_TILES if kind == "encode" else _DECODE_TILES
    return lambda x: tiled_scale_multidim(
        x, lambda piece: run(piece).float(), output_device="cpu", **sizes
    )


_ENCODE_TILES = {
    "tile": (61, 512, 512),
    "overlap": (5, 64, 64),
    "upscale_amount": (lambda frames: max(0, (frames + 3) // 4), 8, 8),
    "index_formulas": (4, 8, 8),
    "out_channels": 16,
    "downscale": True,
}
"""What VAE Encode (Tiled) makes of its defaults, 512, 64, 64 and 8, in sample frames and pixels."""

_DECODE_TILES = {
    "tile": (16, 64, 64),
    "overlap": (2, 8, 8),
    "upscale_amount": (lambda frames: max(0, frames * 4 - 3), 8, 8),
    "index_formulas": (4, 8, 8),
    "out_channels": 3,
}
"""What VAE Decode (Tiled) makes of the same, in latent frames and cells."""


def _count(task: Task, shape: tuple[int, ...]) -> None:
    """Counts one run and prints the fields of its `Count`."""
    import torch

    from benchmarks.calls import each_shape_once
    from benchmarks.counting import DEVICE, Counter, count

    _start_core()
    _play_card()

    def prepare():
        torch.set_default_dtype(torch.bfloat16)
        with torch.device(DEVICE):
            module = NETWORKS[task.family]().eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
        on_host = task.tiled or getattr(module, "comfy_has_chunked_io", False)
        run, at = _runner(module, task.kind, torch.device(DEVICE)), "cpu" if on_host else DEVICE

        def start(counter: Counter) -> None:
            whole = _in_tiles(each_shape_once(counter, run), task.kind) if task.tiled else run
            whole(torch.empty(shape, dtype=torch.bfloat16, device=at))

        return start

    found = count(prepare)
    print(json.dumps([found.peak_bytes, found.operations, found.moved_bytes, found.attention]))


def _serve(task: Task, weights: str) -> None:
    """Answers each line, the path of a clip and of its result or -, with the seconds it took."""
    import torch

    _start_core()
    with torch.device("meta"):
        module = TIMED[task.family]()
    _load(module, task.family, weights)
    module = module.eval().requires_grad_(False)
    run = _runner(module, task.kind, torch.device("cpu"))
    run = _in_tiles(run, task.kind) if task.tiled else run
    print("ready", flush=True)
    for line in sys.stdin:
        source, target = json.loads(line)
        x = torch.load(source)
        with torch.inference_mode():
            start = time.perf_counter()
            result = run(x)
            seconds = time.perf_counter() - start
        if target:
            torch.save(result, target)
        print(json.dumps(seconds), flush=True)


def main() -> None:
    """One of the two commands that the module's words show."""
    mode, family, kind, tiles, *rest = sys.argv[1:]
    task = Task(family, kind, tiles == "tiled")
    if mode == "count":
        _count(task, tuple(map(int, rest)))
    else:
        _serve(task, *rest)


if __name__ == "__main__":
    main()
