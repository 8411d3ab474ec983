"""Which program does a live VAE of HunyuanVideo stand for, which is Kandinsky 5's and FramePack's?

`lower_encoder` and `lower_decoder` walk the parts and put one step for each convolution: GroupNorm
over the whole clip, a clip's first frame before it, and the outermost elements around the picture.

1. Space halves by strides, and time with it; both double by showing elements several times, but a
   clip's first frame once.
2. In the middle every voxel attends to those of its own frame and of all frames before it.

That is the authors' network on the whole clip, as their own code and diffusers' modules have it.
What diffusers' class does by itself is to blend runs of 16 frames, and ComfyUI's takes statistics
over a few frames at a time: norms are told which (see `rewrites.as_referred`). No tensor is read
but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..program.parts import Norm, Rate, TimeMap
from ..program.steps import Program, Residual, Step, StoreSpec
from .attributes import check, plain
from .building import child, children, only, part_of, put_middle
from .hunyuan_building import IDLE, HunyuanBuilder, checked_coder, ratios_of
from .hunyuan_parts import (
    DIFFUSERS,
    DOORS,
    KNOWN,
    Dialect,
    causal,
    dialect_of,
    factors_of,
    group_norm,
    in_runs,
    of_voxels,
)

_ENDS = ("conv_in", "norm_out", "conv_norm_out", "conv_out")


def owns(module: nn.Module) -> bool:
    """Whether a module is HunyuanVideo by its parts, whichever class holds it."""
    coder = cast("Any", getattr(module, "decoder", None))
    if isinstance(getattr(getattr(coder, "mid", None), "attn_1", None), nn.Module):
        inner = getattr(coder.conv_in, "conv", None)
        return isinstance(inner, nn.Conv3d) and isinstance(coder.mid.attn_1.norm, nn.GroupNorm)
    blocks = getattr(getattr(coder, "mid_block", None), "attentions", None) or [None]
    inner = getattr(getattr(coder, "conv_in", None), "conv", None)
    return isinstance(inner, nn.Conv3d) and hasattr(blocks[0], "group_norm")


@dataclass(slots=True)
class _Builder(HunyuanBuilder):
    """The parts, by the names of `dialect`."""

    dialect: Dialect = DIFFUSERS

    def conv(self, module: nn.Module, path: str, norm: Norm | None = None) -> None:
        """A causal convolution, which may halve."""
        conv, down = causal(module, path)
        self.put(conv, norm, Rate(down=down))

    def resnet(self, block: nn.Module, path: str) -> None:
        """Two convolutions, the second added to what the block began with."""
        only(block, path, ("norm1", "conv1", "norm2", "conv2", self.dialect.shortcut, *IDLE))
        entry = self.at
        norm1, norm2 = (
            group_norm(child(block, path, name), f"{path}.{name}") for name in ("norm1", "norm2")
        )
        self.conv(child(block, path, "conv1"), f"{path}.conv1", norm1)
        conv2, _ = causal(child(block, path, "conv2"), f"{path}.conv2")
        found, where = (
            getattr(block, self.dialect.shortcut, None),
            f"{path}.{self.dialect.shortcut}",
        )
        shortcut = of_voxels(plain(found), where) if isinstance(found, nn.Module) else None
        spec = self.spec
        dst = self.store(conv2.out_channels, spec.px, spec.frames) if shortcut else entry
        self.steps.append(Step(self.at, dst, conv2, norm2, residual=Residual(entry, shortcut)))
        self.at = dst

    def attention(self, block: nn.Module, path: str) -> None:
        """The only one; see `HunyuanBuilder.attend`."""
        name, *names = self.dialect.attention
        only(block, path, (name, *(one.partition(".")[0] for one in names)))
        parts = [of_voxels(part_of(block, path, one), f"{path}.{one}") for one in names]
        norm = group_norm(child(block, path, name), f"{path}.{name}", activated=False)
        self.attend(path, norm, parts)

    def up(self, module: nn.Module, path: str) -> None:
        """Twice the size, and twice the frames where it says so."""
        only(module, path, ("conv",))
        conv, down = causal(child(module, path, "conv"), f"{path}.conv")
        if (down, conv.stride) != (1, 1):
            raise LoweringError(f"{path}.conv must keep the size of what it reads.")
        timed, spec = factors_of(module)[0] == 2, self.spec
        dst = self.store(conv.out_channels, spec.px // 2, spec.frames // (2 if timed else 1))
        time_map = TimeMap.UNFOLD_PAIRS if timed else TimeMap.SAME
        self.steps.append(Step(self.at, dst, conv, time_map=time_map, upscale=2))
        self.at = dst

    def level(self, level: nn.Module, path: str, way: int) -> None:
        """Residual blocks, and what changes the size after them."""
        names = self.dialect
        sampler = names.samplers[way].partition(".")[0]
        only(level, path, (names.blocks, sampler, "attn"))
        only(getattr(level, "attn", nn.ModuleList()), f"{path}.attn", ())
        for j, block in enumerate(children(level, names.blocks)):
            self.resnet(block, f"{path}.{names.blocks}.{j}")
        if isinstance(found := getattr(level, sampler, None), nn.Module):
            only(found, f"{path}.{sampler}", ("0", "conv"))
            part, where = part_of(level, path, names.samplers[way]), f"{path}.{names.samplers[way]}"
            if way:
                self.up(part, where)
            else:
                only(part, where, ("conv",))
                self.conv(child(part, where, "conv"), f"{where}.conv")

    def levels(self, coder: nn.Module, name: str, way: int) -> None:
        """All levels of an encoder (way 0) or a decoder (1)."""
        for i, level in _levels(coder, self.dialect, way):
            self.level(level, f"{name}.{self.dialect.levels[way]}.{i}", way)


def _levels(coder: nn.Module, dialect: Dialect, way: int) -> list[tuple[int, nn.Module]]:
    """The levels in the order in which they run, with their numbers."""
    found = list(enumerate(children(coder, dialect.levels[way])))
    return found[::-1] if way and dialect.backwards else found


def _quant(build: _Builder, module: nn.Module, name: str) -> None:
    """A 1x1x1 convolution beside the latents, which belongs to the whole VAE."""
    part = child(module, "vae", name)
    check(part, name, KNOWN)
    build.put(of_voxels(part, name))


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, 3, t, h, w] to moments [b, 2z, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    coder = checked_coder(module, "encoder", DOORS, KNOWN, (*_ENDS, dialect.levels[0]))
    first, _ = causal(child(coder, "encoder", "conv_in"), "encoder.conv_in")
    build = _Builder([StoreSpec(first.in_channels, 1, 1)], dialect=dialect)
    build.put(first)
    build.levels(coder, "encoder", 0)
    put_middle(build, coder, "encoder", dialect.middle)
    _finish(build, coder, "encoder")
    _quant(build, module, "quant_conv")
    return in_runs(build.program("encoder"), dialect.levels[0])


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/8, w/8] to sample frames [b, 3, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect = dialect_of(module)
    coder = checked_coder(module, "decoder", DOORS, KNOWN, (*_ENDS, dialect.levels[1]))
    latents = of_voxels(child(module, "vae", "post_quant_conv"), "post_quant_conv").in_channels
    levels = [level for _, level in _levels(coder, dialect, 1)]
    px, frames = ratios_of(levels, dialect.samplers[1], lambda part: factors_of(part)[0] == 2)
    build = _Builder([StoreSpec(latents, px, frames)], dialect=dialect)
    _quant(build, module, "post_quant_conv")
    build.conv(child(coder, "decoder", "conv_in"), "decoder.conv_in")
    put_middle(build, coder, "decoder", dialect.middle)
    build.levels(coder, "decoder", 1)
    _finish(build, coder, "decoder")
    return in_runs(build.program("decoder"), dialect.levels[1], dialect.norm_out)


def _finish(build: _Builder, coder: nn.Module, name: str) -> None:
    """The last norm and convolution."""
    path = build.dialect.norm_out
    norm = group_norm(child(coder, name, path), f"{name}.{path}")
    build.conv(child(coder, name, "conv_out"), f"{name}.conv_out", norm)
