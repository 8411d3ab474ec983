"""How do steps of HunyuanVideo, 1.0 and 1.5, follow each other where both have the same?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from ..errors import LoweringError
from ..program.parts import STEADY, Attend, Conv, Keys, Norm, Rate
from ..program.steps import Residual, Step
from .attributes import Known, check, check_doors, plain
from .building import Builder, child, children, only, part_of

IDLE = ("swish", "temb_proj")
"""Parts of ComfyUI's residual blocks beside what the steps contain; no video goes through the
second.
"""

_MIDDLE = ("attentions", "resnets", "block_1", "attn_1", "block_2")
"""What there is in the middle, by either names."""


@dataclass(slots=True)
class HunyuanBuilder(Builder):
    """Steps that make a store each, and attention to this frame and those before."""

    def put(
        self,
        mix: Conv | Attend,
        norm: Norm | None = None,
        rate: Rate = STEADY,
        residual: Residual | None = None,
    ) -> None:
        """One step from the newest result to a store of its own."""
        px = self.spec.px * mix.stride // mix.makes_px
        dst = self.store(mix.out_channels, px, self.spec.frames * rate.down // rate.up)
        self.steps.append(Step(self.at, dst, mix, norm, rate=rate, residual=residual))
        self.at = dst

    def attend(self, path: str, norm: Norm, parts: Sequence[Conv]) -> None:
        """Queries, keys and values; attention to this frame and those before; the projection,
        added.

        parts: these four, by their convolutions of 1x1x1.
        """
        entry, channels = self.at, self.spec.channels
        if {one.out_channels for one in parts} != {channels}:
            raise LoweringError(f"{path} must attend with one head of {channels} channels.")
        first, *others, proj = parts
        beside = tuple(one.path for one in others)
        self.put(replace(first, out_channels=3 * channels, beside=beside), norm)
        self.put(Attend(path, channels, Keys.EARLIER))
        self.steps.append(Step(self.at, entry, proj, residual=Residual(entry)))
        self.at = entry


Doors = Mapping[str, tuple[str, ...]]


def checked_coder(
    module: nn.Module, name: str, doors: Doors, known: Mapping[str, Known], parts: Sequence[str]
) -> nn.Module:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own.

    parts: what there may be in it beside its middle.
    """
    check_doors(module, doors)
    coder = child(module, "vae", name)
    check(coder, name, known)
    coder = plain(coder)
    only(coder, name, (*parts, "mid", "mid_block"))
    for middle in ("mid", "mid_block"):
        if isinstance(found := getattr(coder, middle, None), nn.Module):
            only(found, f"{name}.{middle}", _MIDDLE)
            for part, count in (("attentions", 1), ("resnets", 2)):
                if len(children(found, part)) not in (0, count):
                    raise LoweringError(f"{name}.{middle}.{part} must hold {count} parts.")
    return coder


def ratios_of(
    levels: Iterable[nn.Module], sampler: str, timed: Callable[[nn.Module], bool]
) -> tuple[int, int]:
    """Pixels and sample frames for one element of the latents, by what a decoder's levels make of
    them.

    sampler: the name of what ends a level. timed: whether one doubles frames, too.
    """
    px = frames = 1
    for level in levels:
        if isinstance(getattr(level, sampler.partition(".")[0], None), nn.Module):
            twice = timed(part_of(level, "decoder", sampler))
            px, frames = 2 * px, frames * (2 if twice else 1)
    return px, frames
