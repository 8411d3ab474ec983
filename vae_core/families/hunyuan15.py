"""Which program does a live VAE of HunyuanVideo 1.5 stand for?

`lower_encoder` and `lower_decoder` walk the parts and put one step for each convolution: norms of
single voxels, a clip's first frame before it, and the outermost elements around the picture.

1. Time and space change by moving values between places and channels: after a convolution that
   makes fewer channels, or of one that makes more. What a level ended with goes the same way, by
   means or repeated, and is added. A clip's first frame is a picture there: it is moved in space
   alone.
2. In the middle every voxel attends to those of its own frame and of all frames before it, as the
   authors and diffusers have it. (ComfyUI's class lets it see the frames behind it, too.)
3. What goes into the decoder is added, repeated, to what its first convolution makes; and means of
   what goes into the encoder's last one to its result.

Nothing here depends on later frames: the result is the same whatever the chunks. No tensor is read
but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..program.parts import Conv, Fold, Form, Norm, Packing
from ..program.steps import SOURCE, Program, Residual, Step, StoreSpec
from .attributes import plain
from .building import child, children, only, part_of, put_middle
from .hunyuan15_parts import (
    DIFFUSERS,
    DOORS,
    KNOWN,
    Dialect,
    causal,
    dialect_of,
    joining,
    means,
    pointwise,
    rate_of,
    repeats,
    shuffling,
)
from .hunyuan_building import IDLE, HunyuanBuilder, checked_coder, ratios_of

_EPS = 1e-12
"""The least length that a voxel is divided by, as `torch.nn.functional.normalize` has it."""

_ENDS = ("conv_in", "norm_out", "conv_out", "regul")


def owns(module: nn.Module) -> bool:
    """Whether a module is HunyuanVideo 1.5 by its parts, whichever class holds it."""
    coder = cast("Any", getattr(module, "decoder", None))
    if hasattr(getattr(getattr(coder, "mid", None), "attn_1", None), "norm"):
        return hasattr(coder.mid.attn_1.norm, "gamma") and hasattr(coder.conv_in, "conv")
    blocks = getattr(getattr(coder, "mid_block", None), "attentions", None) or [None]
    return hasattr(blocks[0], "to_q") and hasattr(getattr(blocks[0], "norm", None), "gamma")


@dataclass(slots=True)
class _Builder(HunyuanBuilder):
    """The parts, by the names of `dialect`."""

    dialect: Dialect = DIFFUSERS

    def norm(self, owner: nn.Module, path: str, name: str, *, activated: bool = True) -> Norm:
        """The norm called `name`, followed by SiLU where it is activated."""
        channels = cast("Any", child(owner, path, name)).gamma.shape[0]
        return Norm(f"{path}.{name}", channels, 1, _EPS, form=Form.L2, activated=activated)

    def resnet(self, block: nn.Module, path: str) -> None:
        """Two convolutions, the second added to what the block began with."""
        names = ("norm1", "conv1", "norm2", "conv2", self.dialect.shortcut)
        only(block, path, (*names, *IDLE))
        entry = self.at
        conv1, conv2 = (
            causal(child(block, path, name), f"{path}.{name}") for name in ("conv1", "conv2")
        )
        self.put(conv1, self.norm(block, path, "norm1"))
        found = getattr(block, self.dialect.shortcut, None)
        where = f"{path}.{self.dialect.shortcut}"
        shortcut = pointwise(plain(found), where) if isinstance(found, nn.Module) else None
        spec = self.spec
        dst = self.store(conv2.out_channels, spec.px, spec.frames) if shortcut else entry
        norm = self.norm(block, path, "norm2")
        self.steps.append(Step(self.at, dst, conv2, norm, residual=Residual(entry, shortcut)))
        self.at = dst

    def attention(self, block: nn.Module, path: str) -> None:
        """The only one; see `HunyuanBuilder.attend`."""
        names = self.dialect.attention
        only(block, path, ("norm", *names))
        parts = [pointwise(child(block, path, name), f"{path}.{name}") for name in names]
        self.attend(path, self.norm(block, path, "norm", activated=False), parts)

    def down(self, module: nn.Module, path: str) -> None:
        """Half the size, and half the frames where it is timed."""
        frames, conv = self._sampler(module, path, 0)
        entry, channels = self.at, self.spec.channels
        made = 4 * frames * conv.out_channels
        if channels % (frames * conv.out_channels):
            raise LoweringError(f"{path} must make {made} means of {channels} channels.")
        self.put(conv)
        mix, rate = joining(f"{path}.conv", conv.out_channels, made, frames)
        self.put(mix, rate=rate)
        mix, rate = joining(f"{path}.shortcut", channels, made, frames)
        self.steps.append(Step(entry, self.at, mix, residual=Residual(self.at), rate=rate))

    def up(self, module: nn.Module, path: str) -> None:
        """Twice the size, and twice the frames where it is timed."""
        frames, conv = self._sampler(module, path, 1)
        fold = Fold(frames, 2, spreads=True, packing=Packing.PLACES)
        residual = Residual(self.at, fold=fold)
        self.put(shuffling(conv, frames), rate=rate_of(up=frames), residual=residual)

    def _sampler(self, module: nn.Module, path: str, way: int) -> tuple[int, Conv]:
        """How many frames a sampler makes one of, or of one, and its convolution."""
        only(module, path, ("conv",))
        frames = 2 if getattr(module, self.dialect.timed[way]) else 1
        return frames, causal(child(module, path, "conv"), f"{path}.conv")

    def levels(self, coder: nn.Module, name: str, way: int) -> None:
        """All levels of an encoder (way 0) or a decoder (1)."""
        names = self.dialect
        sampler = names.samplers[way].partition(".")[0]
        for i, level in enumerate(children(coder, names.levels[way])):
            path = f"{name}.{names.levels[way]}.{i}"
            only(level, path, (names.blocks, sampler))
            for j, block in enumerate(children(level, names.blocks)):
                self.resnet(block, f"{path}.{names.blocks}.{j}")
            if isinstance(found := getattr(level, sampler, None), nn.Module):
                only(found, f"{path}.{sampler}", ("0", "conv"))
                part = part_of(level, path, names.samplers[way])
                (self.up if way else self.down)(part, f"{path}.{names.samplers[way]}")


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, 3, t, h, w] to moments [b, 2z, n, h/16,
    w/16].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    coder = checked_coder(module, "encoder", DOORS, KNOWN, (*_ENDS, dialect.levels[0]))
    first = causal(child(coder, "encoder", "conv_in"), "encoder.conv_in")
    build = _Builder([StoreSpec(first.in_channels, 1, 1)], dialect=dialect)
    build.put(first)
    build.levels(coder, "encoder", 0)
    put_middle(build, coder, "encoder", dialect.middle)
    last = causal(child(coder, "encoder", "conv_out"), "encoder.conv_out")
    entry, norm = build.at, build.norm(coder, "encoder", "norm_out")
    build.put(_whole(means("encoder.shortcut", build.spec.channels, last.out_channels)))
    added, build.at = Residual(build.at), entry
    build.put(last, norm, residual=added)
    return build.program("encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/16, w/16] to sample frames [b, 3, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    coder = checked_coder(module, "decoder", DOORS, KNOWN, (*_ENDS, dialect.levels[1]))
    first = causal(child(coder, "decoder", "conv_in"), "decoder.conv_in")
    levels = children(coder, dialect.levels[1])
    ratios = ratios_of(levels, dialect.samplers[1], lambda part: getattr(part, dialect.timed[1]))
    build = _Builder([StoreSpec(first.in_channels, *ratios)], dialect=dialect)
    build.put(_whole(repeats("decoder.shortcut", first.in_channels, first.out_channels)))
    build.steps.append(Step(SOURCE, build.at, first, residual=Residual(build.at)))
    put_middle(build, coder, "decoder", dialect.middle)
    build.levels(coder, "decoder", 1)
    last = causal(child(coder, "decoder", "conv_out"), "decoder.conv_out")
    build.put(last, build.norm(coder, "decoder", "norm_out"))
    return build.program("decoder")


def _whole(fold: Conv) -> Conv:
    """`fold`; `LoweringError` where channels are no multiples of each other."""
    few, many = sorted((fold.in_channels, fold.out_channels))
    if many % few:
        raise LoweringError(f"{fold.path} cannot join {few} channels and {many}.")
    return fold
