"""A card where there is none: its libraries allocate, take time and are wrong as a test has it.

1. `Library` takes the place of torch's convolutions. It computes what they compute, and beside that
   allocates a workspace, lets a clock go on, and spoils results.
2. `PlayedCard` is what the engine asks for memory and time: the counter at the dispatcher, and that
   clock.
3. `playing` puts both in place of a processor, which is then treated as an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from device_bytes import DeviceBytes
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from traffic import is_channels_last

from vae_core.planning.machine import ACCELERATOR_WORKSPACE_BYTES, Machine
from vae_core.planning.routes import Finding, Route, Table
from vae_core.planning.workspaces import ConvClass, Workspace
from vae_core.running import cards, devices, machines, probe, statistics


def route_of(x: Tensor) -> Route:
    """By which route a library gets an input, as far as that shows."""
    if x.ndim == 4:
        return Route.PICTURES
    # one channel lies either way
    return Route.CHANNELS_LAST if is_channels_last(x) else Route.CONTIGUOUS


Bytes = Callable[[Route, int, int], int]
"""Of a workspace, from the bytes of input and result."""


def nothing(_route: Route, _input: int, _result: int) -> int:
    """No workspace at all."""
    return 0


@dataclass
class Library:
    """What a device's library does.

    workspace: bytes beside input and result. wrong: routes whose results are spoilt. seconds: that
    a convolution takes by each route. refused: routes that it has no kernel for.
    """

    workspace: Bytes = nothing
    wrong: tuple[Route, ...] = ()
    seconds: dict[Route, float] = field(default_factory=dict)
    refused: tuple[Route, ...] = ()
    clock: float = 0.0
    calls: list[Route] = field(default_factory=list)
    resting: bool = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside the block convolutions are the processor's own."""
        self.resting = True
        try:
            yield
        finally:
            self.resting = False

    def table(self, title: str, kinds: Iterable[ConvClass]) -> Table:
        """What a probe would find of it, without trying."""
        found = {kind: (self._finding(Route.CHANNELS_LAST),) for kind in kinds}
        return Table(title, found)

    def _finding(self, route: Route) -> Finding:
        size, right = 2**24, route not in self.wrong
        base = self.workspace(route, 0, 0)
        slopes = (self.workspace(route, *one) - base for one in ((size, 0), (0, size)))
        line = Workspace(base, *(slope / size for slope in slopes))
        return Finding(route, right, 0.0, line.per_input, line, 1.0)

    def convolve(self, convolved: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`convolved`, as this library does it."""

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest, **named) -> Tensor:
            if self.resting and (bias is None or x.element_size() > 2):
                return convolved(x, weight, bias, *rest, **named)
            if self.resting:  # on a card a bias comes after a result was rounded
                shape = (-1, *(1,) * (x.ndim - 2))
                return convolved(x, weight, None, *rest, **named).add_(bias.view(shape))
            route = route_of(x)
            self.calls.append(route)
            if route in self.refused:
                raise NotImplementedError("no kernel for that")
            size = self.workspace(route, x.nbytes, _result_bytes(x, weight, *rest, **named))
            scratch = torch.empty(size, dtype=torch.uint8, device=x.device)
            out = _like_a_card(convolved, x, weight, bias, *rest, **named)
            del scratch
            self.clock += self.seconds.get(route, 1.0)
            return out.mul_(1.25) if route in self.wrong else out

        return run


def _result_bytes(x: Tensor, weight: Tensor, stride=1) -> int:
    """Of a convolution without padding."""
    sides = x.shape[2:]
    strides = stride if isinstance(stride, tuple) else (stride,) * len(sides)
    count = x.shape[0] * weight.shape[0]
    for side, taps, step in zip(sides, weight.shape[2:], strides, strict=True):
        count *= (side - taps) // step + 1
    return count * x.element_size()


def _like_a_card(convolved, x: Tensor, *rest, **named) -> Tensor:
    """What a convolution makes, as it lies on a card, and nothing allocated beside it."""
    if x.device.type == "meta":
        return convolved(x, *rest, **named)
    with _disable_current_modes():
        found = convolved(x, *rest, **named)
    layout = torch.contiguous_format
    if is_channels_last(x):
        layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    made = torch.empty(found.shape, dtype=found.dtype, device=found.device, memory_format=layout)
    return made.copy_(found)


class PlayedCard:
    """A processor or `meta` as a card; see `vae_core.running.cards.Card`."""

    def __init__(self, library: Library, device: str = "cpu", name: str = "Played Card") -> None:
        self.library, self.device = library, torch.device(device)
        self.counter = DeviceBytes(device)
        self.name, self.driver, self.started = name, "1.0", 0

    def title(self) -> str:
        return self.name

    def facts(self, dtype: torch.dtype) -> dict[str, str]:
        return {"device": self.name, "driver": self.driver, "dtype": str(dtype)}

    def start_peak(self) -> None:
        self.started += 1
        self.counter.peak_bytes = self.counter.live_bytes

    def allocated_bytes(self) -> int:
        return self.counter.live_bytes

    def peak_bytes(self) -> int:
        return self.counter.peak_bytes

    def seconds(self) -> float:
        return self.library.clock


@contextmanager
def library_in_place(library: Library) -> Iterator[None]:
    """Inside the block convolutions are those of `library`."""
    conv3d = F.conv3d

    def exact(x: Tensor, weight: Tensor, strides: tuple[int, int, int]) -> Tensor:
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return conv3d(x.to(wide), weight.to(wide), stride=strides)

    with (
        patch.object(F, "conv3d", library.convolve(conv3d)),
        patch.object(F, "conv2d", library.convolve(F.conv2d)),
        patch.object(probe, "exact", exact),  # a processor's, which stays what it is
    ):
        yield


def _as_wide_as_a_cards(found: Callable[..., Any]) -> Callable[..., Any]:
    """Statistics of channels in float32, where a processor rounds its own to 16 bits."""

    def run(x: Tensor, *rest: Any) -> Any:
        wide = x.dtype not in (torch.float16, torch.bfloat16) or x.device.type == "meta"
        return found(x if wide else x.float(), *rest)

    return run


MACHINE = Machine(True, ACCELERATOR_WORKSPACE_BYTES, None)
"""Of a card beside a host with all the memory that is asked of it."""


@contextmanager
def playing(card: PlayedCard, asked_for: str = "cpu") -> Iterator[PlayedCard]:
    """Inside the block `card` is what a device of the type `asked_for` turns out to be; what was
    known of other cards is forgotten, and so is what is learnt of it.
    """

    def card_for(device: torch.device) -> PlayedCard | None:
        return card if device.type == asked_for else None

    def machine_for(device: torch.device, *_: object) -> Machine:
        return MACHINE if device.type == asked_for else Machine(False, MACHINE.workspace_bytes)

    machines.forget()
    own = statistics.channel_statistics
    with (
        patch.object(statistics, "channel_statistics", _as_wide_as_a_cards(own)),
        patch.object(machines.machine, "machine_for", machine_for),
        patch.object(cards, "card_for", card_for),
        patch.object(devices, "accelerates", lambda device: device.type == asked_for),
        library_in_place(card.library),
        card.counter,
    ):
        yield card
    machines.forget()
