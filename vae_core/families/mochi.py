"""Which program does a live Mochi VAE stand for: the authors', ComfyUI's or diffusers'?

`lower_encoder` and `lower_decoder` walk the parts and put one step for each convolution. Norms take
the statistics of each frame; convolutions see a clip's first frame again in place of those before
it, and what lies outermost beyond the picture. In the encoder each place attends to itself in
earlier frames, and pixels come with waves of themselves.

Implementations differ, and each module stands for what its own class does:

1. Where a decoder makes frames of one, the authors' and ComfyUI's keep the last one alone of a
   clip's first frame, at every level, before the next convolution. diffusers' keeps all of them at
   every level and leaves out the first ones of the finished clip: as many frames, but the first
   ones are others, which were made of others. Files are loaded into the authors' network, whatever
   names they have; a live module of diffusers' gives what its pipeline gives.
2. ComfyUI's encoder lets places attend to later frames, too, which the authors' and diffusers' do
   not. That is had by `settings.Reference.CORE` alone.

Nothing here depends on more than a frame and the frames before: the result is the same whatever the
chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..program.layouts import Axis, Shuffle
from ..program.parts import Attend, Conv, Form, Keys, Norm, Rate, Waves
from ..program.steps import Program
from ..program.stores import StoreSpec
from .attributes import check, check_doors, plain
from .building import child, only
from .by_frame import POINT, FrameBuilder, channels_of, group_norm, linear
from .mochi_parts import (
    AUTHORS,
    DIFFUSERS,
    DOORS,
    HEAD,
    KNOWN,
    Dialect,
    Named,
    check_switches,
    dialect_of,
    replicated,
)

_ORDER = (Axis.CHANNEL, Axis.FRAME, Axis.ROW, Axis.COLUMN)
_WAVES = Waves(6, 8)
_SIDE = 2


def owns(module: nn.Module) -> bool:
    """Whether a module is Mochi's by its parts, whichever class holds it."""
    coder = getattr(module, "decoder", None)
    if hasattr(coder, "output_proj"):
        return True
    return hasattr(coder, "proj_out") and hasattr(coder, "block_in")


@dataclass(slots=True)
class _Builder(FrameBuilder):
    """The parts of Mochi, by the names of `dialect`."""

    dialect: Dialect = DIFFUSERS

    def resnet(self, block: Named) -> None:
        """Two convolutions, the second added to what the block began with."""
        norm1, conv1, norm2, conv2 = (block.child(name) for name in self.dialect.resnet)
        entry = self.at
        self.put(replicated(conv1), group_norm(norm1.part, norm1.path))
        self.add(entry, replicated(conv2), group_norm(norm2.part, norm2.path))

    def attention(self, norm: Named, block: Named) -> None:
        """Queries, keys and values; attention of each place to itself before; the projection,
        added.
        """
        entry, channels = self.at, self.spec.channels
        found = (one for one in self.dialect.queries if hasattr(block.part, one[0]))
        names = next(found, self.dialect.queries[0])
        made = [linear(one.part, one.path) for one in map(block.child, names)]
        wanted = channels, 3 * channels
        if (
            made[0].in_channels,
            sum(one.out_channels for one in made),
        ) != wanted or channels % HEAD:
            raise LoweringError(f"{block.path} must attend with heads of {HEAD} channels.")
        beside = tuple(one.path for one in made[1:])
        qkv = Conv(made[0].path, *wanted, 1, 1, 1, POINT, beside=beside)
        self.put(qkv, group_norm(norm.part, norm.path, activated=False))
        heads, least = channels // HEAD, self.dialect.least
        self.put(Attend(block.path, channels, Keys.EARLIER, column=True, heads=heads, least=least))
        out = block.child(self.dialect.out)
        self.add(entry, linear(out.part, out.path))

    def up(self, proj: Named, frames: int) -> None:
        """A layer that makes frames and squares of each place."""
        made, _ = channels_of(proj.part)
        layer, cell = linear(proj.part, proj.path), frames * _SIDE**2
        if made % cell:
            raise LoweringError(f"{proj.path} must make {frames} frames of squares; {proj.part}.")
        shuffle = Shuffle(frames, _ORDER, _ORDER, takes=frames - 1)
        conv = replace(layer, out_channels=made // cell, makes_px=_SIDE, shuffle=shuffle)
        self.put(conv, rate=Rate(up=frames))

    def down(self, conv: Named) -> None:
        """A convolution of whole cells of frames and squares."""
        mix = replicated(conv)
        if (mix.kernel, mix.stride) != (_SIDE, _SIDE):
            raise LoweringError(f"{conv.path} must halve what it reads; it is {conv.part}.")
        self.put(mix, rate=Rate(down=mix.kernel_t))

    # diffusers' lists

    def block(self, block: Named) -> None:
        """Resnets, and the attention after each where there is one."""
        only(block.part, block.path, {"resnets", "norms", "attentions", "conv_in", "proj"})
        resnets = block.list("resnets")
        norms, attentions = (_slots(block, name, len(resnets)) for name in ("norms", "attentions"))
        for resnet, norm, attention in zip(resnets, norms, attentions, strict=True):
            self.resnet(resnet)
            if attention and norm:
                self.attention(norm.child("norm_layer"), attention)

    # the authors' lists

    def parts(self, parts: Iterable[Named]) -> None:
        """Parts one after the other, each told by what it holds."""
        for part in parts:
            if hasattr(part.part, "stack"):
                only(part.part, part.path, {"stack", "attn_block"})
                self.resnet(part)
                held = part.child("attn_block")
                if not isinstance(held.part, nn.Identity):
                    self.attention(held.child("norm"), held.child("attn"))
            elif hasattr(part.part, "layers"):
                first, *rest = part.child("layers").members()
                self.down(first)
                self.parts(rest)
            elif hasattr(part.part, "proj"):
                only(part.part, part.path, {"blocks", "proj", "d2st"})
                self.parts(part.child("blocks").members())
                self.up(part.child("proj"), _expansion(part))
            else:
                raise LoweringError(f"{part.path} is unknown to the engine.")

    def last(self, coder: Named, norm: Norm) -> None:
        """The last layer, after a norm."""
        layer = coder.child(self.dialect.last)
        self.put(linear(layer.part, layer.path), norm)


def _slots(block: Named, name: str, count: int) -> list[Named | None]:
    """The parts of a list that holds None in some places, or is not there."""
    found = getattr(block.part, name, None)
    listed = [None] * count if found is None else cast("list[nn.Module | None]", list(found))
    return [
        None if part is None else Named(plain(part), f"{block.path}.{name}.{i}")
        for i, part in enumerate(listed)
    ]


def _checked(module: nn.Module, name: str, parts: set[str]) -> Named:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own."""
    check_doors(module, DOORS)
    check_switches(module)
    coder = child(module, "vae", name)
    check(coder, name, KNOWN)
    only(coder, name, parts)
    return Named(plain(coder), name)


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, c, t, h, w] to moments [b, 2z, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    if dialect is AUTHORS:
        coder = _checked(module, "encoder", {"layers", *_AROUND, "output_norm", "output_proj"})
        first, *blocks = coder.child("layers").members()
    else:
        parts = {"proj_in", "block_in", "down_blocks", "block_out", "norm_out", "proj_out"}
        coder, blocks = _checked(module, "encoder", {*parts, *_AROUND}), []
        first = coder.child("proj_in")
    mix = linear(first.part, first.path)
    pictures, rest = divmod(mix.in_channels, _WAVES.channels)
    if rest:
        raise LoweringError(f"{first.path} must read pixels and their waves; it is {first.part}.")
    build = _Builder([StoreSpec(pictures, 1, 1)], dialect=dialect)
    build.put(replace(mix, waves=_WAVES))
    if dialect is AUTHORS:
        build.parts(blocks)
    else:
        build.block(coder.child("block_in"))
        for level in coder.list("down_blocks"):
            build.down(level.child("conv_in.conv"))
            build.block(level)
        build.block(coder.child("block_out"))
    norm = coder.child(dialect.norm_out)
    build.last(coder, group_norm(norm.part, norm.path))
    return build.program("encoder")


_AROUND = ("fourier_features",)
"""A part without weights, whose work a step contains."""


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/8, w/8] to sample frames [b, c, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    if dialect is DIFFUSERS:
        return _lower_theirs(module)
    coder = _checked(module, "decoder", {"blocks", "output_proj"})
    start, *levels, end = coder.list("blocks")
    first, *resnets = start.members()
    build = _begun(first, [_expansion(level) for level in levels], dialect)
    build.parts((*resnets, *levels, *end.members()))
    build.last(coder, _activation(build))
    return build.program("decoder")


def _lower_theirs(module: nn.Module) -> Program:
    """`lower_decoder` of diffusers' class."""
    parts = {"conv_in", "block_in", "up_blocks", "block_out", "proj_out"}
    coder = _checked(module, "decoder", parts)
    levels = coder.list("up_blocks")
    frames = [_expansion(level) for level in levels]
    build = _begun(coder.child("conv_in"), frames, DIFFUSERS)
    build.block(coder.child("block_in"))
    for level, made in zip(levels, frames, strict=True):
        build.block(level)
        build.up(level.child("proj"), made)
    build.block(coder.child("block_out"))
    build.last(coder, _activation(build))
    build.steps[-1] = replace(build.steps[-1], leaves_out=prod(frames) - 1)
    return build.program("decoder")


def _begun(first: Named, frames: list[int], dialect: Dialect) -> _Builder:
    """A decoder's first layer, with levels that make so many frames of each."""
    mix = replicated(first)
    if (mix.kernel_t, mix.kernel) != (1, 1):
        raise LoweringError(f"{first.path} must be a 1x1x1 convolution; it is {first.part}.")
    latents = StoreSpec(mix.in_channels, _SIDE ** len(frames), prod(frames))
    build = _Builder([latents], dialect=dialect)
    build.put(mix)
    return build


def _activation(build: _Builder) -> Norm:
    """SiLU alone."""
    return Norm("", build.spec.channels, 1, 0.0, form=Form.NONE)


def _expansion(level: Named) -> int:
    """How many frames a level of a decoder makes of each."""
    module = cast("Any", level.part)
    if module.spatial_expansion != _SIDE:
        raise LoweringError(f"{level.path} must make squares of {_SIDE}x{_SIDE}.")
    return int(module.temporal_expansion)
