"""What becomes of weights in core's own patchers when the card has room for a part of them?

Run by core's interpreter (`test_weights.py`), with core's folder and this repository as arguments;
writes one JSON object for every case. `meta` plays the card: nothing is computed, and every copy of
a weight to it is counted at the dispatcher. Core's classes and its accounting are its own; played
are what asks a driver: free memory, and the pages that comfy-aimdo keeps weights in.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CORE, PACK = Path(sys.argv[1]), Path(sys.argv[2])
CARD = torch.device("meta")
LATENTS = (1, 16, 7, 4, 6)
SHARES = {"nothing": 0.0, "some": 0.4, "most": 0.72, "all": 1.3}


class Copies(TorchDispatchMode):
    """Bytes that are copied from the computer's memory to the card."""

    moved_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        allocates = func.overloadpacket is torch.ops.aten.empty_like
        if isinstance(out, torch.Tensor) and out.device == CARD and not allocates:
            read = (x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor))
            self.moved_bytes += sum(x.nbytes for x in read if x.device.type == "cpu" and x.ndim)
        return out


class Pages:
    """Pages of a card in comfy-aimdo's stead: so many bytes of weights stay once they came."""

    room_bytes = 0
    most_pinned = 0
    pinned: list[Any] = []  # noqa: RUF012
    resident: dict[int, int] = {}  # noqa: RUF012

    def __init__(self, size: int, device: Any) -> None:
        del size, device
        self.offset = 0

    def alloc(self, size: int) -> tuple[Pages, int, int]:
        self.offset += size
        return self, self.offset, size

    def fault(self, at: int, size: int) -> bytes | None:
        if at not in Pages.resident and Pages.held_bytes() + size > Pages.room_bytes:
            return None
        Pages.resident[at] = size
        Pages.pinned.append(at)
        Pages.most_pinned = max(Pages.most_pinned, len(Pages.pinned))
        return b"page"

    def unpin(self, at: int, size: int) -> None:
        del size
        Pages.pinned.remove(at)

    def prioritize(self) -> None:
        """Nothing else has pages."""

    def loaded_size(self) -> int:
        return Pages.held_bytes()

    @staticmethod
    def held_bytes() -> int:
        return sum(Pages.resident.values())

    @staticmethod
    def begin(room_bytes: int) -> None:
        """No weight is there, and so many bytes have room."""
        Pages.room_bytes, Pages.most_pinned = room_bytes, 0
        Pages.resident.clear()
        Pages.pinned.clear()


def core() -> SimpleNamespace:
    """Core with a card that `meta` plays."""
    sys.argv = ["main.py", "--cpu", "--disable-pinned-memory"]
    sys.path.insert(0, str(CORE))
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sd
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    import folder_paths  # noqa: F401
    from comfy import memory_management, model_management, model_patcher

    model_management.vram_state = model_management.VRAMState.NORMAL_VRAM
    model_management.MIN_WEIGHT_MEMORY_RATIO = 0.0  # as on NVIDIA
    model_management.vae_device = lambda: CARD
    comfy_aimdo.model_vbar.ModelVBAR = Pages
    comfy_aimdo.model_vbar.vbars_analyze = lambda device=None: Pages.held_bytes()
    comfy_aimdo.host_buffer.HostBuffer = lambda *sizes: SimpleNamespace(size=0)
    comfy_aimdo.torch.aimdo_to_tensor = lambda page, device: torch.empty(
        page[2], dtype=torch.uint8, device=device
    )
    return SimpleNamespace(
        memory=memory_management, management=model_management, patchers=model_patcher
    )


def pack() -> ModuleType:
    """The pack, as a host loads it."""
    spec = importlib.util.spec_from_file_location(
        "the_pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["the_pack"] = module
    spec.loader.exec_module(module)
    return module


def part(name: str) -> Any:
    """A module of the pack."""
    return importlib.import_module(f"the_pack.{name}")


def own_vae() -> Any:
    """The shipped VAE through our loader."""
    return part("nodes.bridge.vae").load_vae(part("vae_core").tiny_vae_path(), "bf16")


def adopted_vae(core: Any) -> Any:
    """A VAE of core's own layers, of the same size, as core's loader leaves it."""
    bridge, planning = part("nodes.bridge.host"), part("nodes.bridge.planning")
    import comfy.ldm.cogvideo.vae as native
    import comfy.sd

    network = native.AutoencoderKLCogVideoX(latent_channels=16, **planning.COGVIDEOX["tiny"])
    network = network.to(torch.bfloat16).eval()
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.bfloat16)
    vae.first_stage_model, vae.latent_channels = network, 16
    vae.patcher = bridge.patcher_of(network, vae)
    return part("nodes.bridge.vae").exact_vae(vae)


class Latents:
    """Latents on the card, so that weights alone are copied there."""

    shape, device = LATENTS, CARD

    def take(self, frames: Any) -> torch.Tensor:
        shape = (*LATENTS[:2], frames.size, *LATENTS[3:])
        return torch.zeros(shape, dtype=torch.bfloat16, device=CARD)


def ours(vae: Any) -> list[nn.Parameter]:
    return list(vae.first_stage_model.parameters())


def on_card(vae: Any) -> int:
    return sum(p.nbytes for p in ours(vae) if p.device == CARD)


def play(core: Any, vae: Any, share: float) -> int:
    """The card has so much room for weights beside what core keeps free; the weights' bytes."""
    manage = core.management
    weights = sum(p.nbytes for p in ours(vae))
    total = int(manage.minimum_inference_memory() + share * weights)
    Pages.room_bytes = int(share * weights)

    def free(device: Any = None, torch_free_too: bool = False) -> Any:
        found = total - on_card(vae) - Pages.held_bytes()
        return (found, 0) if torch_free_too else found

    manage.get_free_memory, manage.get_total_memory = free, lambda device=None: total
    return weights


def decoded(vae: Any) -> Iterator[int]:
    """Load and decode: bytes of weights copied while loading, and in each chunk."""
    running, card = part("nodes.bridge.running"), part("nodes.bridge.card")
    engine, settings = vae.video_vae, part("vae_core").Settings()
    with Copies() as copies, torch.inference_mode():
        settings, _ = running.settled(vae, lambda s: engine.plan_decode(LATENTS, s), settings)
        yield copies.moved_bytes
        for _ in engine.decode_stream(Latents(), settings):
            yield copies.moved_bytes
    yield card.left_behind(vae, engine)


def case(core: Any, dynamic: bool, adopted: bool, share: float) -> dict[str, Any]:
    """One VAE on one card."""
    patchers = core.patchers
    kind = patchers.ModelPatcherDynamic if dynamic else patchers.ModelPatcher
    patchers.CoreModelPatcher, core.memory.aimdo_enabled = kind, dynamic
    core.management.current_loaded_models.clear()
    Pages.begin(0)
    vae = adopted_vae(core) if adopted else own_vae()
    weights = play(core, vae, share)
    *moved, said = decoded(vae)
    loading, *chunks = moved
    steps = [after - before for before, after in zip(moved, chunks, strict=False)]
    return {
        "patcher": type(vae.patcher).__name__,
        "weights": weights,
        "on_card": on_card(vae),
        "in_pages": Pages.held_bytes(),
        "loading": loading,
        "chunks": steps,
        "said": said,
        "pinned_at_most": Pages.most_pinned,
        "pinned_after": len(Pages.pinned),
    }


def more_room_later(core: Any) -> dict[str, Any]:
    """A plain network that was loaded in part, on a card that then has room."""
    core.patchers.CoreModelPatcher, core.memory.aimdo_enabled = core.patchers.ModelPatcher, False
    core.management.current_loaded_models.clear()
    Pages.begin(0)
    vae = own_vae()
    model = vae.first_stage_model
    model.to = lambda device: model.to_empty(device=device)  # `meta` has nothing to copy back
    weights = play(core, vae, SHARES["most"])
    list(decoded(vae))
    first = on_card(vae)
    play(core, vae, SHARES["all"])
    *_, said = decoded(vae)
    return {"weights": weights, "first": first, "then": on_card(vae), "said": said}


def main() -> None:
    """Every case, as JSON on standard output."""
    out, sys.stdout = sys.stdout, sys.stderr
    logging.disable(logging.INFO)
    host = core()
    pack()
    found: dict[str, Any] = {
        f"{'dynamic' if dynamic else 'plain'} {'adopted' if adopted else 'own'} {name}": case(
            host, dynamic, adopted, share
        )
        for dynamic in (False, True)
        for adopted in (False, True)
        for name, share in SHARES.items()
    }
    found["more room later"] = more_room_later(host)
    json.dump(found, out)


if __name__ == "__main__":
    main()
