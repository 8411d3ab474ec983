"""Which program does a live Mochi VAE stand for, diffusers' or ComfyUI's?

`lower_encoder` and `lower_decoder` walk the parts and put one step for each convolution. Norms take
the statistics of each frame; convolutions see a clip's first frame again in place of those before
it, and what lies outermost beyond the picture. In the encoder each place attends to itself in
earlier frames, and pixels come with waves of themselves.

The reference is the authors' network, which ComfyUI has too: where frames are made of one, a clip's
first frame makes the last of them alone, before the next convolution. diffusers keeps all of them
and leaves out the first ones of the finished clip, so that its first frames are others. ComfyUI's
encoder, for its part, lets places attend to later frames, which the authors' and diffusers' do not.

Nothing here depends on more than a frame and the frames before: the result is the same whatever the
chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Attend, Axis, Conv, Edge, Form, Keys, Norm, Rate, Shuffle
from ..program.steps import Program, StoreSpec
from .attributes import check, check_doors, plain
from .building import child, children, only
from .by_frame import POINT, FrameBuilder, channels_of, group_norm, linear
from .mochi_parts import DOORS, KNOWN, Dialect, dialect_of, part_of, replicated, shuffled_of

_ORDER = (Axis.CHANNEL, Axis.FRAME, Axis.ROW, Axis.COLUMN)
_SIDE = 2
_HEAD = 32


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
        layers = [block.child(name) for name in self.dialect.queries]
        made = [linear(one.part, one.path) for one in layers]
        out = block.child(self.dialect.out)
        wanted = channels, 3 * channels
        if (made[0].in_channels, sum(one.out_channels for one in made)) != wanted or channels % HEAD:
            raise LoweringError(f"{block.path} must attend with heads of {HEAD} channels.")
        beside = tuple(one.path for one in made[1:])
        qkv = Conv(made[0].path, *wanted, 1, 1, 1, POINT, beside=beside)
        self.put(qkv, group_norm(norm.part, norm.path, activated=False))
        self.put(Attend(block.path, channels, Keys.COLUMN, channels // HEAD, unit=True))
        self.add(entry, linear(out.part, out.path))

    def up(self, proj: Named, frames: int) -> None:
        """A layer that makes frames and squares of each place."""
        read = self.spec.channels
        made, _ = channels_of(proj.part)
        channels = made // (frames * _SIDE**2)
        if made % (frames * _SIDE**2) or not isinstance(proj.part, nn.Linear):
            raise LoweringError(f"{proj.path} must make {frames} frames of squares; {proj.part}.")
        shuffle = Shuffle(frames, _ORDER, _ORDER, takes=frames - 1)
        conv = Conv(proj.path, read, channels, 1, 1, 1, POINT, makes_px=_SIDE, shuffle=shuffle)
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
        norms, attentions = (
            _slots(block, name, len(block.list("resnets"))) for name in ("norms", "attentions")
        )
        for resnet, norm, attention in zip(block.list("resnets"), norms, attentions, strict=True):
            self.resnet(resnet)
            if attention and norm:
                self.attention(norm.child("norm_layer"), attention)

    # the authors' lists

    def parts(self, parts: list[Named]) -> None:
        """Parts one after the other, each told by what it holds."""
        for part in parts:
            if hasattr(part.part, "stack"):
                self.resnet(part)
                held = part.child("attn_block")
                if not isinstance(held.part, nn.Identity):
                    self.attention(held.child("norm"), held)
            elif hasattr(part.part, "layers"):
                first, *rest = part.list("layers")
                self.down(first)
                self.parts(rest)
            elif hasattr(part.part, "d2st"):
                self.parts(part.list("blocks"))
                texp = int(cast("Any", part.part).temporal_expansion)
                self.up(part.child("proj"), texp)
            else:
                raise LoweringError(f"{part.path} is unknown to the engine.")


def _slots(block: Named, name: str, count: int) -> list[Named | None]:
    """The parts of a list that holds None in some places, or is not there."""
    found = getattr(block.part, name, None)
    if found is None:
        return [None] * count
    listed = cast("list[nn.Module | None]", list(found))
    return [
        None if part is None else Named(plain(part), f"{block.path}.{name}.{i}")
        for i, part in enumerate(listed)
    ]


def _checked(module: nn.Module, name: str) -> Named:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own."""
    check_doors(module, DOORS)
    coder = child(module, "vae", name)
    check(coder, name, KNOWN)
    return Named(plain(coder), name)


def _last(build: _Builder, coder: Named, norm: Norm) -> None:
    layer = coder.child(build.dialect.last)
    build.put(linear(layer.part, layer.path), norm)


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, c, t, h, w] to moments [b, 2z, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder, dialect = _checked(module, "encoder"), dialect_of(module)
    theirs = dialect is AUTHORS
    first = coder.list("layers")[0] if theirs else coder.child("proj_in")
    mix = linear(first.part, first.path)
    pictures, rest = divmod(mix.in_channels, WAVES.channels)
    if rest:
        raise LoweringError(f"{first.path} must read pixels and their waves; it is {first.part}.")
    build = _Builder([StoreSpec(pictures, 1, 1)], dialect=dialect)
    build.put(replace(mix, waves=WAVES))
    if theirs:
        build.parts(coder.list("layers")[1:])
    else:
        build.block(coder.child("block_in"))
        for level in coder.list("down_blocks"):
            build.down(level.child("conv_in.conv"))
            build.block(level)
        build.block(coder.child("block_out"))
    norm = coder.child(dialect.norm_out)
    _last(build, coder, group_norm(norm.part, norm.path))
    return build.program("encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/8, w/8] to sample frames [b, c, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder, dialect = _checked(module, "decoder"), dialect_of(module)
    levels = coder.list("up_blocks") if dialect is DIFFUSERS else coder.list("blocks")
    frames = [_expansion(level) for level in levels if hasattr(level.part, "proj")]
    first = coder.child("conv_in" if dialect is DIFFUSERS else "blocks.0.0")
    mix = causal(first.part, first.path)
    build = _Builder(
        [StoreSpec(mix.in_channels, _SIDE ** len(frames), prod(frames))], dialect=dialect
    )
    build.put(mix)
    if dialect is DIFFUSERS:
        build.block(coder.child("block_in"))
        for level, made in zip(levels, frames, strict=True):
            build.block(level)
            build.up(level.child("proj"), made)
        build.block(coder.child("block_out"))
    else:
        build.parts(Named(levels[0].part, levels[0].path).members()[1:])
        build.parts(levels[1:-1])
        build.parts(levels[-1].members())
    _last(build, coder, Norm("", build.spec.channels, 1, 0.0, form=Form.NONE))
    return build.program("decoder")


def _expansion(level: Named) -> int:
    """How many frames an upsampling level makes of each."""
    return int(cast("Any", level.part).temporal_expansion)
