"""How does a family's file put a program together from live modules?

1. `child`, `only` and `children` walk a module by attribute and refuse what is missing or unknown:
   leaving it out would give wrong pixels.
2. `geometry` reads a convolution's shape.
3. `Builder` collects steps and stores; `at` is always the store that holds the newest result.

What the parts of a network are called, and how they follow each other, is the family's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv
from ..program.steps import SOURCE, Program, Step, StoreSpec
from ..program.verify import verify
from .attributes import plain

# Modules that hold no weights and whose work the steps already contain.
_WEIGHTLESS = frozenset({"nonlinearity", "dropout", "conv_act"})


def child(module: nn.Module, path: str, name: str) -> nn.Module:
    """`module.name`; `LoweringError` with its path where there is none."""
    found = getattr(module, name, None)
    if not isinstance(found, nn.Module):
        raise LoweringError(
            f"{path}.{name} is missing: {type(module).__name__} is not what the engine knows by"
            " this name. Pass a live video VAE of diffusers or ComfyUI."
        )
    return plain(found)


def part_of(module: nn.Module, path: str, name: str) -> nn.Module:
    """The part called `name`, which may be a path of several names."""
    for each in name.split("."):
        module, path = child(module, path, each), f"{path}.{each}"
    return module


def only(module: nn.Module, path: str, known: Iterable[str]) -> None:
    """`LoweringError` where `module` has a child that is not among `known`."""
    strange = [
        name for name, _ in module.named_children() if name not in _WEIGHTLESS and name not in known
    ]
    if strange:
        kind = type(getattr(module, strange[0])).__name__
        raise LoweringError(
            f"{path}.{strange[0]} ({kind}) is unknown to the engine, and leaving it out would"
            " change the result."
            f" Known here: {', '.join(sorted(known))}."
        )


def children(module: nn.Module, name: str) -> list[nn.Module]:
    """The parts in a list of modules, none where the attribute is None."""
    found = getattr(module, name, None)
    return [plain(part) for part in cast("nn.ModuleList", found)] if found is not None else []


def pair(value: Any, path: str) -> tuple[int, int]:
    """Height and width of a value given for two or three dimensions."""
    if isinstance(value, str):
        raise LoweringError(f"{path} pads {value!r}; the engine wants a padding in numbers.")
    *_, height, width = value
    return int(height), int(width)


def geometry(conv: nn.Conv2d | nn.Conv3d, path: str, pad: Halo) -> Conv:
    """`Conv` for a module whose picture edges are padded by `pad`."""
    out_channels, in_channels, *kernel = conv.weight.shape
    taps = (1, *kernel)[-3:]
    (stride, stride_w), (height, width) = pair(conv.stride, path), pair(kernel, path)
    common = conv.groups == 1 and set(conv.dilation) == {1} and conv.padding_mode == "zeros"
    if not common or stride != stride_w or height != width:
        raise LoweringError(f"{path} is a convolution that the engine does not run: {conv}.")
    return Conv(path, in_channels, out_channels, taps[0], height, stride, pad)


@dataclass(slots=True)
class Builder:
    """Steps and stores so far; `at` is the store that holds the newest result."""

    stores: list[StoreSpec]
    steps: list[Step] = field(default_factory=list[Step])
    at: int = SOURCE

    @property
    def spec(self) -> StoreSpec:
        """Of the newest result."""
        return self.stores[self.at]

    def store(self, channels: int, px: int, frames: int) -> int:
        """A new store's number."""
        self.stores.append(StoreSpec(channels, px, frames))
        return len(self.stores) - 1

    def program(self, name: str) -> Program:
        """All of it; `LoweringError` where it is no legal program."""
        return verify(Program(name, tuple(self.steps), tuple(self.stores)))


class Attending(Protocol):
    """A builder of networks with these two kinds of blocks."""

    def resnet(self, block: nn.Module, path: str) -> None: ...

    def attention(self, block: nn.Module, path: str) -> None: ...


def put_middle(build: Attending, coder: nn.Module, name: str, parts: tuple[str, str, str]) -> None:
    """The three blocks at the smallest size, by their names in a coder called `name`."""
    first, attention, last = ((part_of(coder, name, part), f"{name}.{part}") for part in parts)
    build.resnet(*first)
    build.attention(*attention)
    build.resnet(*last)
