"""Does what surrounds a call (a default device or dtype, autocast) change nothing?"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from networks import random_latents, random_module, random_video
from torch import Tensor

import vae_core
from vae_core import Settings, VideoVAE, from_module
from vae_core.accelerate import accelerate

VIDEO, LATENTS = random_video(9, 24, 40), random_latents(3, 3, 5)
SEED = 5


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


SURROUNDINGS = {
    "another default device": lambda: default_device("meta"),
    "a wide default dtype": lambda: default_dtype(torch.float64),
    "a narrow default dtype": lambda: default_dtype(torch.bfloat16),
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
}


def streamed(vae: VideoVAE, settings: Settings) -> Tensor:
    return torch.cat(list(vae.encode_stream(iter(VIDEO.unbind(2)), settings)), dim=2)


def sampled(vae: VideoVAE, settings: Settings) -> Tensor:
    return vae.encode(VIDEO, settings).sample(torch.Generator("cpu").manual_seed(SEED))


CALLS: dict[str, Callable[[VideoVAE, Settings], Tensor]] = {
    "encode": lambda vae, settings: vae.encode(VIDEO, settings).moments,
    "decode": lambda vae, settings: vae.decode(LATENTS, settings),
    "sample": sampled,
    "kl": lambda vae, settings: vae.encode(VIDEO, settings).kl(),
    "encode_stream": streamed,
}
SETTINGS = [
    Settings(),
    Settings(placement="mmap", norm_scope="clip"),
    Settings(tiling="blend", tile_px=32, overlap_px=16),
]


@pytest.mark.parametrize("name", SURROUNDINGS)
@pytest.mark.parametrize("call", CALLS)
def test_surroundings_change_no_bit(name: str, call: str) -> None:
    vae = from_module(random_module())
    for settings in SETTINGS:
        expected = CALLS[call](vae, settings)
        with SURROUNDINGS[name]():
            found = CALLS[call](vae, settings)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("call", [*CALLS, "accelerated", "a batch, sliced"])
def test_autocast_changes_no_bit_of_a_vae_in_any_dtype(
    call: str, dtype: torch.dtype, autocast: torch.dtype
) -> None:
    video, latents = random_video(7, 20, 28, dtype), random_latents(3, 3, 5, dtype)
    vae = from_module(random_module(dtype))
    door = accelerate(random_module(dtype))
    door.enable_slicing()
    calls: dict[str, Callable[[], Tensor]] = {
        "encode": lambda: vae.encode(video).moments,
        "decode": lambda: vae.decode(latents),
        "sample": lambda: vae.encode(video).sample(torch.Generator().manual_seed(SEED)),
        "kl": lambda: vae.encode(video).kl(),
        "encode_stream": lambda: list(vae.encode_stream(iter(video.unbind(2))))[-1],
        "accelerated": lambda: door.decode(latents).sample,
        "a batch, sliced": lambda: door.decode(latents.expand(2, -1, -1, -1, -1)).sample,
    }
    expected = calls[call]()
    with torch.autocast("cpu", dtype=autocast):
        found = calls[call]()
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("one_dnn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_is_the_same_for_both_ways_to_convolve(
    monkeypatch: pytest.MonkeyPatch, one_dnn: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: one_dnn)
    vae = from_module(random_module(dtype))
    expected = vae.decode(LATENTS)
    with torch.autocast("cpu", dtype=torch.float16):
        found = vae.decode(LATENTS)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_a_vae_is_loaded_in_any_surroundings() -> None:
    for name in SURROUNDINGS:
        with SURROUNDINGS[name]():
            vae = vae_core.load(vae_core.tiny_vae_path(), dtype=torch.float32)
        kinds = {(p.device.type, p.dtype) for p in vae.module.parameters()}
        assert kinds == {("cpu", torch.float32)}, name


# What makes a tensor on the default device when none is named.
FACTORIES = {
    "arange", "empty", "eye", "full", "linspace", "ones", "rand", "randint", "randn", "randperm",
    "scalar_tensor", "tensor", "zeros",
}  # fmt: skip


def nameless(path: Path) -> list[str]:
    """Calls of a factory in a file that name no device."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        f"{path.name}:{call.lineno} {ast.unparse(call)}"
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value) == "torch"
        and call.func.attr in FACTORIES
        and "device" not in {keyword.arg for keyword in call.keywords}
    ]


def test_no_tensor_is_made_without_naming_its_device() -> None:
    root = Path(vae_core.__file__).resolve().parents[1]
    files = [path for folder in ("vae_core", "nodes") for path in (root / folder).rglob("*.py")]
    assert files
    assert [found for path in files for found in nameless(path)] == []
