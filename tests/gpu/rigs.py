"""On what do the checks run: a card, or what plays one?

`Rig` is what a check asks for. `CardRig` is a real card with the full-size networks. In its place
stand two, since nothing can have both: `ValuesRig` computes narrow networks on the processor, which
is treated as an accelerator; `ShapesRig` has a device of its own beside the host, `meta` inside
`FakeTensorMode`, on which only shapes and bytes are real. In both a counter at the dispatcher is
the allocator, and `Library` allocates what a device's libraries would.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import networks
import networks_hunyuan
import networks_ltx
import networks_mochi
import networks_seedvr2
import networks_wan
import torch
from benchmarks.families import FAMILIES
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from played_card import Library, PlayedCard, playing
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vae_core import Settings, VideoVAE, from_module
from vae_core.planning.classes import classes_of
from vae_core.planning.routes import Table
from vae_core.running import cards, machines

Clip = tuple[int, int, int]
"""Sample frames, height and width."""


@dataclass(frozen=True)
class Peak:
    """The most bytes that a run held beside what was there before and its result; reserved: by the
    allocator, None where it has no such thing.
    """

    used: int
    reserved: int | None


class Rig:
    """A device, the networks on it, and its memory.

    small: a clip for values. rounded: one that is large enough for rounding to even out.
    large: clips for memory and time.
    """

    device: torch.device
    is_card = False
    small: Clip
    rounded: Clip
    large: tuple[Clip, ...]
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float16, torch.float32)

    def module(self, family: str, dtype: torch.dtype) -> Any:
        """The family's network in a dtype, with its weights on the device."""
        raise NotImplementedError

    def host_module(self, family: str, dtype: torch.dtype) -> Any:
        """The same with its weights in host memory."""
        return deepcopy(self.module(family, dtype)).to("cpu")

    def vae(self, family: str, dtype: torch.dtype) -> VideoVAE:
        """The engine over it."""
        return from_module(self.module(family, dtype), dtype, self.device)

    def source(self, vae: VideoVAE, kind: str, clip: Clip) -> Tensor:
        """What is encoded or decoded, in host memory."""
        frames, height, width = clip
        if kind == "encode":
            return networks.random_video(frames, height, width, vae.dtype)
        px, n = vae.ratios.px, vae.ratios.latent_frames(frames)
        return networks.random_latents(
            n, height // px, width // px, vae.dtype, channels=vae.latent_channels
        )

    def facts(self, dtype: torch.dtype) -> dict[str, str]:
        """What decides about the device's kernels."""
        card = cards.card_for(self.device)
        assert card
        return card.facts(dtype)

    def untiled(self, family: str, kind: str, module: Any, x: Tensor, chunk: int) -> Tensor:
        """What diffusers gives without tiles, in the same chunks where those matter."""
        if family == "ltx":
            encodes = kind == "encode"
            whole = networks_ltx.whole_encode if encodes else networks_ltx.whole_decode
            return whole(module, x)
        if family != "cogvideox":
            return _whole_wan(kind, module, x)
        with torch.no_grad():
            if kind == "encode":
                return networks.diffusers_encode(module, x, chunk)
            if chunk > 4:
                return networks.diffusers_decode(module, x, chunk)
        # diffusers takes a latent frame by itself for the first of a clip
        return from_module(module).decode(x, Settings(tiling="off", chunk_frames=chunk))

    def held_bytes(self) -> int:
        """Bytes on the device now."""
        raise NotImplementedError

    def peak(self, run: Callable[[], Any]) -> Peak:
        """What `run` holds at most."""
        raise NotImplementedError


def run_of(vae: VideoVAE, kind: str, x: Tensor, settings: Any) -> Callable[[], Tensor]:
    """A run that returns its result."""
    if kind == "encode":
        return lambda: vae.encode(x, settings).moments
    return lambda: vae.decode(x, settings)


def plan_of(vae: VideoVAE, kind: str, x: Tensor, settings: Any, probing: bool = True) -> Any:
    """The plan of that run."""
    make = vae.plan_encode if kind == "encode" else vae.plan_decode
    return make(tuple(x.shape), settings, probing=probing)


def _whole_wan(kind: str, module: Any, x: Tensor) -> Tensor:
    """Wan's untiled result; the module's upsampling, which is put aside for it, comes back."""
    if kind == "encode":
        return networks_wan.whole_encode(module, x)
    blocks = [one for one in module.decoder.modules() if hasattr(one, "resample")]
    kept = [block.resample[0] for block in blocks]
    try:
        return networks_wan.whole_decode(module, x)
    finally:
        for block, own in zip(blocks, kept, strict=True):
            block.resample[0] = own


class CardRig(Rig):
    """A CUDA or ROCm card, and the full-size networks with random weights."""

    is_card = True
    small = rounded = (17, 96, 160)
    large = ((49, 480, 720), (81, 768, 1360))

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._made = lru_cache(maxsize=4)(self._moved)

    @lru_cache(maxsize=2)  # noqa: B019, there is one rig a process
    def _weights(self, family: str) -> dict[str, Tensor]:
        return FAMILIES[family].made().state_dict()

    def _moved(self, family: str, dtype: torch.dtype) -> Any:
        module = FAMILIES[family].unmade(dtype)
        weights = {name: one.to(self.device, dtype) for name, one in self._weights(family).items()}
        module.load_state_dict(weights, assign=True)
        return module.eval().requires_grad_(False)

    def module(self, family: str, dtype: torch.dtype) -> Any:
        return self._made(family, dtype)

    def held_bytes(self) -> int:
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def peak(self, run: Callable[[], Any]) -> Peak:
        before = self.held_bytes()
        torch.cuda.empty_cache()
        reserved = torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        run()  # its result is in host memory, as its source is
        torch.cuda.synchronize()
        used = torch.cuda.max_memory_allocated() - before
        return Peak(used, torch.cuda.max_memory_reserved() - reserved)


class ValuesRig(Rig):
    """Narrow networks on the processor; what is right comes from its own convolutions."""

    small, rounded = (9, 32, 48), (9, 48, 64)
    large = ((9, 64, 96),)

    def __init__(self, card: PlayedCard) -> None:
        self.device, self._card = card.device, card

    def module(self, family: str, dtype: torch.dtype) -> Any:
        return networks.NARROW[family](dtype)

    def untiled(self, family: str, kind: str, module: Any, x: Tensor, chunk: int) -> Tensor:
        with self._card.library.aside():
            return super().untiled(family, kind, module, x, chunk)

    def held_bytes(self) -> int:
        gc.collect()
        return self._card.counter.live_bytes

    def peak(self, run: Callable[[], Any]) -> Peak:
        before = self.held_bytes()
        self._card.start_peak()
        result = run()
        return Peak(self._card.peak_bytes() - before - result.nbytes, None)


NARROW_UNMADE: dict[str, Callable[[], Any]] = {
    "cogvideox": lambda: AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(16, 16, 32, 32),
        norm_num_groups=8,
        layers_per_block=1,
        latent_channels=16,
    ),
    "wan": lambda: AutoencoderKLWan(base_dim=networks_wan.NARROW),
    "wan22": networks_wan.narrow_wan_2_2,
    "ltx": networks_ltx.narrow_ltx2,
    "hunyuan15": networks_hunyuan.narrow_hunyuan_1_5,
    "hunyuan": networks_hunyuan.narrow_hunyuan,
    "seedvr2": networks_seedvr2.narrow_seedvr2,
    "mochi": networks_mochi.narrow_mochi,
}


def _unmade(family: str, dtype: torch.dtype, device: str) -> Any:
    """A narrow network of which only the shapes are real."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = NARROW_UNMADE[family]()
    finally:
        torch.set_default_dtype(before)
    return module.eval().requires_grad_(False)


class ShapesRig(Rig):
    """Narrow networks on `meta`, with the host beside it."""

    device = torch.device("meta")
    small = rounded = (9, 64, 96)
    large = ((9, 64, 96), (17, 96, 64))

    def __init__(self, card: PlayedCard) -> None:
        self._card = card

    def module(self, family: str, dtype: torch.dtype) -> Any:
        return _unmade(family, dtype, "meta")

    def host_module(self, family: str, dtype: torch.dtype) -> Any:
        return _unmade(family, dtype, "cpu")

    def held_bytes(self) -> int:
        gc.collect()
        return self._card.counter.live_bytes

    def source(self, vae: VideoVAE, kind: str, clip: Clip) -> Tensor:
        frames, height, width = clip
        if kind == "encode":
            return torch.empty(1, 3, frames, height, width, dtype=vae.dtype)
        px, n = vae.ratios.px, vae.ratios.latent_frames(frames)
        shape = (1, vae.latent_channels, n, height // px, width // px)
        return torch.empty(shape, dtype=vae.dtype)

    def peak(self, run: Callable[[], Any]) -> Peak:
        before = self.held_bytes()
        self._card.start_peak()
        run()
        return Peak(self._card.peak_bytes() - before, None)


@dataclass(frozen=True)
class Bench:
    """What checks run on: `values` where results count, `shapes` where bytes do."""

    values: Rig
    shapes: Rig

    @property
    def is_card(self) -> bool:
        """Whether it is a real card."""
        return self.values.is_card


@contextmanager
def values_in_place(library: Library) -> Iterator[ValuesRig]:
    """A processor that plays a card, inside the block."""
    with playing(PlayedCard(library)) as card:
        yield ValuesRig(card)


@contextmanager
def shapes_in_place(library: Library) -> Iterator[ShapesRig]:
    """`meta` that plays a card, inside the block."""

    def completed(card: PlayedCard, dtype: torch.dtype, program: Any) -> Table:
        return library.table(card.title(), classes_of(program))

    with ExitStack() as stack:
        enter = stack.enter_context
        enter(FakeTensorMode())
        enter(torch.inference_mode())
        card = enter(playing(PlayedCard(library, "meta"), "meta"))
        enter(patch.object(machines, "_completed", completed))
        enter(patch.object(machines, "_known", lambda card, dtype: Table(card.title())))
        enter(patch("vae_core.vae.check_values", lambda *_: None))
        enter(patch("vae_core.running.execute.check_result", lambda *_: None))
        yield ShapesRig(card)
