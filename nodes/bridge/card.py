"""What can the host's card give to a run, and where are the weights that it needs?

1. `room_bytes` says what a plan may take before anything is loaded: what is free or could be made
   free, less what the host reserves, the weights, and what stays free (`usable`).
2. `load` asks the host once, for the weights and for so much beside them that the plan keeps within
   `usable`. A host that is asked for more than there is leaves weights behind.
3. `free_bytes` says what there is then, `left_behind` which weights are elsewhere all the same.

On the processor nothing is asked: its memory is the planner's business.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn

from ...vae_core import VideoVAE
from ...vae_core.planning.machine import machine_for
from ...vae_core.planning.plan import Plan, size_text
from ...vae_core.running import probe_file
from ...vae_core.running.devices import is_integrated
from ...vae_core.running.machines import raised_since
from . import host
from .lending import Lender

KEPT_PART = 10
"""One byte of so many that are free stays free: allocators round up, and leave gaps."""

ALLOWANCE_BYTES = 256 * 2**20
"""For what is loaded when it is first used, such as kernels."""

WINDOWS_BYTES = 512 * 2**20
"""More of it there: that driver does not refuse what is too much but moves it elsewhere, slowly."""

_WEIGHTS_TIMES = 1.1  # of the weights' size: what the host itself makes free for them


def usable(free_bytes: int) -> int:
    """What a plan may take of so many free bytes; at least 1."""
    return max(free_bytes * (KEPT_PART - 1) // KEPT_PART - _allowance(), 1)


def needed(used_bytes: int) -> int:
    """What has to be free for a plan that takes so many bytes: `usable` turned round."""
    return -(-(used_bytes + _allowance()) * KEPT_PART // (KEPT_PART - 1))


def _allowance() -> int:
    return ALLOWANCE_BYTES + (WINDOWS_BYTES if sys.platform == "win32" else 0)


def on_card(vae: Any) -> bool:
    """Whether a VAE runs on a card, with weights that the host looks after."""
    return vae.patcher is not None and torch.device(vae.device).type != "cpu"


def keeps_results(vae: Any) -> bool:
    """Whether the host keeps results on the card as well."""
    return on_card(vae) and torch.device(vae.output_device).type == torch.device(vae.device).type


def room_bytes(vae: Any) -> int | None:
    """What a plan may take on the card when all else has made room, its weights are loaded, and
    what stays free is left alone; None where the VAE runs on the processor.
    """
    if not on_card(vae):
        return None
    manage, device = host.management(), vae.device
    free = _free(vae) + sum(
        _loaded_bytes(loaded.model)
        for loaded in getattr(manage, "current_loaded_models", ())
        if loaded.model is not None and loaded.device == device
    )
    there = min(free, manage.get_total_memory(device)) - _reserve()
    return usable(math.floor(there - _WEIGHTS_TIMES * vae.patcher.model_size()))


def room_elsewhere_bytes(device: torch.device) -> int | None:
    """What a plan may take on another device, when all that the host has there has made room; None
    for the processor, and where there is no host.
    """
    if device.type == "cpu" or not host.running():
        return None
    manage = host.management()
    loaded = (one.model for one in getattr(manage, "current_loaded_models", ()))
    there = (model for model in loaded if model is not None and model.load_device == device)
    free = manage.get_free_memory(device) + sum(map(_loaded_bytes, there))
    return usable(math.floor(min(free, manage.get_total_memory(device)) - _reserve()))


def make_room(device: torch.device, used_bytes: int) -> None:
    """Let the host make room on another device for a plan of so many bytes."""
    if device.type != "cpu" and host.running():
        host.management().free_memory(needed(used_bytes), device)


def free_bytes(vae: Any) -> int | None:
    """What a plan may take of what is free once `load` has been asked, beside weights that come
    when they are read; None where the VAE runs on the processor.
    """
    if not on_card(vae):
        return None
    paged = sum(_own_bytes(module) for module in _layers(vae) if _is_paged_by_host(module))
    return usable(_free(vae) - _reserve() - paged)


def _free(vae: Any) -> int:
    ask = getattr(vae.patcher, "get_free_memory", host.management().get_free_memory)
    return int(ask(vae.device))


def _reserve() -> int:
    return int(getattr(host.management(), "extra_reserved_memory", lambda: 0)())


def _is_paged(patcher: Any) -> bool:
    """Whether the host brings weights when they are read, and takes them away as it likes."""
    return getattr(patcher, "is_dynamic", lambda: False)()


def _loaded_bytes(patcher: Any) -> int:
    """Weights on the card that `_free` does not count as free already."""
    if _is_paged(patcher):
        return patcher.model.model_loaded_weight_memory
    return patcher.loaded_size()


def load(vae: Any, used_bytes: int) -> None:
    """Load the VAE's weights, with room for a plan of `used_bytes` beside them; other models stay
    where there is enough.
    """
    if vae.patcher is None:
        return
    if not _is_paged(vae.patcher) and _is_loaded_in_part(vae):
        vae.patcher.detach()
    wanted = needed(used_bytes) if on_card(vae) else used_bytes
    with current(vae):
        host.management().load_models_gpu([vae.patcher], memory_required=wanted)


def _is_loaded_in_part(vae: Any) -> bool:
    """Whether the host takes for loaded completely what is not, and would not load the rest: it
    does so where layers are none of its own.
    """
    model = vae.patcher.model
    loaded = getattr(model, "model_loaded_weight_memory", 0) > 0
    return loaded and not getattr(model, "model_lowvram", False) and away_bytes(vae) > 0


def away_bytes(vae: Any) -> int:
    """Bytes of weights elsewhere than on the VAE's device, those that the host pages apart."""
    kind = torch.device(vae.device).type
    return sum(_own_bytes(layer, kind) for layer in _layers(vae) if not _is_paged_by_host(layer))


def seen(vae: Any, engine: VideoVAE, plan: Plan) -> list[str]:
    """What to tell a person of the card after `plan` was run."""
    raised = raised_since(engine.device, engine.dtype, plan)
    return [*left_behind(vae, engine), *raised]


def left_behind(vae: Any, engine: VideoVAE) -> list[str]:
    """What to tell a person of weights that were not on the card while `engine` ran."""
    passing = engine.lender.passing_bytes if isinstance(engine.lender, Lender) else 0
    away = away_bytes(vae) + passing if on_card(vae) else 0
    if not away:
        return []
    whole = sum(map(_own_bytes, _layers(vae)))
    return [
        f"{size_text(away)} of {size_text(whole)} of weights found no room on {vae.device} and are"
        " copied there for every chunk, which is slow. Close what else uses the card."
    ]


def _layers(vae: Any) -> Iterator[nn.Module]:
    return vae.first_stage_model.modules()


def _is_paged_by_host(layer: nn.Module) -> bool:
    """Whether the host brings the layer's weights when they are read; they lie elsewhere till
    then.
    """
    return hasattr(layer, "_v")


def _own_bytes(layer: nn.Module, apart_from: str = "") -> int:
    """Bytes of a layer's own parameters, those on one kind of device apart."""
    own = layer.parameters(recurse=False)
    return sum(parameter.nbytes for parameter in own if parameter.device.type != apart_from)


def current(vae: Any) -> AbstractContextManager[Any]:
    """A block in which the VAE's card is the current one, as the host has it around its own."""
    if not host.running():
        return nullcontext()
    make = getattr(host.management(), "cuda_device_context", None)
    return make(torch.device(vae.device)) if make else nullcontext()


def keep_probes() -> None:
    """Let what is found out about devices stay where the host keeps what is the user's."""
    folder = host.user_folder()
    probe_file.keep_in(None if folder is None else folder / "exact_video_vae")


# Where a VAE would run


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The device that a VAE runs on, and its memory in bytes."""

    device: torch.device
    free_bytes: int
    total_bytes: int

    @property
    def apart(self) -> bool:
        """Whether this memory is not the computer's, see `machine_for`."""
        return machine_for(self.device, is_integrated(self.device)).apart


def device_memory() -> DeviceMemory:
    """Where a VAE would run now, and how much of its memory is free, less the host's reserve."""
    device = host.management().vae_device() if host.running() else torch.device("cpu")
    if torch.device(device).type == "cpu":
        memory = psutil.virtual_memory()
        return DeviceMemory(torch.device("cpu"), int(memory.available), int(memory.total))
    manage = host.management()
    free, total = manage.get_free_memory(device), manage.get_total_memory(device)
    return DeviceMemory(torch.device(device), max(int(free - _reserve()), 1), int(total))
