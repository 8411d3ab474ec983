"""Which program does a live VAE of Wan stand for: 2.1, which is Qwen-Image's too, or 2.2?

`lower_encoder` and `lower_decoder` walk the parts, tell each by what it holds, and put one step for
each convolution: norms of single voxels, zeros before the clip, a first frame that goes past every
convolution of time, and attention among the voxels of a frame in the middle.

Wan 2.2 has two things more. Its first and last convolutions see and make squares of 2x2 elements,
whose values lie side by side in their channels. And past each of its levels goes a shortcut that
only moves values between places and channels: a step of its own, which is added to what the level
makes.

Nothing here depends on more than a frame's voxels and the frames before: the result is the same
whatever the chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import STEADY, Attend, Conv, First, Form, Norm, Rate
from ..program.steps import Program, Residual, Step, StoreSpec
from .attributes import check, check_doors, plain
from .building import Builder, child, children, only, part_of, put_middle
from .wan_parts import (
    DIFFUSERS,
    DOORS,
    KNOWN,
    Dialect,
    causal,
    dialect_of,
    folding,
    into_squares,
    of_frames,
    of_squares,
    of_time,
    patch_of,
)

_SHORTCUT = "avg_shortcut"
_EPS = 1e-12
"""The least length that a voxel is divided by, as `torch.nn.functional.normalize` has it."""


def owns(module: nn.Module) -> bool:
    """Whether a module is Wan 2.1 by its parts, whichever class holds it."""
    return _is_wan(module) and not _has_shortcuts(module)


def owns_2_2(module: nn.Module) -> bool:
    """Whether a module is Wan 2.2 by its parts, whichever class holds it."""
    return _is_wan(module) and _has_shortcuts(module)


def _is_wan(module: nn.Module) -> bool:
    coder = cast("Any", getattr(module, "decoder", None))
    if all(hasattr(coder, name) for name in ("middle", "head", "upsamples")):
        return True
    blocks = getattr(getattr(coder, "mid_block", None), "attentions", None) or [None]
    return hasattr(blocks[0], "to_qkv")


def _has_shortcuts(module: nn.Module) -> bool:
    coder = getattr(module, "decoder", None)
    levels = getattr(coder, "up_blocks", None) or getattr(coder, "upsamples", None) or [None]
    return hasattr(levels[0], _SHORTCUT)


@dataclass(slots=True)
class _Builder(Builder):
    """The parts of Wan, by the names of `dialect`.

    kept: a store that a shortcut will read, and that nothing may be written over.
    """

    dialect: Dialect = DIFFUSERS
    kept: int | None = None

    def put(
        self, mix: Conv | Attend, norm: Norm | None = None, upscale: int = 1, rate: Rate = STEADY
    ) -> None:
        """One step from the newest result to a store of its own."""
        px = self.spec.px * mix.stride // (upscale * mix.makes_px)
        frames = self.spec.frames * rate.down // rate.up
        dst = self.store(mix.out_channels, px, frames)
        self.steps.append(Step(self.at, dst, mix, norm, upscale=upscale, rate=rate))
        self.at = dst

    def norm(self, owner: nn.Module, path: str, name: str, *, activated: bool = True) -> Norm:
        """The norm called `name`, followed by SiLU where it is activated."""
        gamma = cast("Any", part_of(owner, path, name)).gamma
        channels = gamma.shape[0]
        return Norm(f"{path}.{name}", channels, 1, _EPS, form=Form.L2, activated=activated)

    def conv(self, owner: nn.Module, path: str, name: str, norm: Norm | None = None) -> None:
        """The causal convolution called `name`."""
        self.put(causal(part_of(owner, path, name), f"{path}.{name}"), norm)

    def resnet(self, block: nn.Module, path: str) -> None:
        """Two convolutions, the second added to what the block began with."""
        norm1, conv1, norm2, conv2, name = self.dialect.resnet
        only(block, path, {part.partition(".")[0] for part in self.dialect.resnet})
        entry = self.at
        self.conv(block, path, conv1, self.norm(block, path, norm1))
        conv = causal(part_of(block, path, conv2), f"{path}.{conv2}")
        module = child(block, path, name)
        shortcut = None if isinstance(module, nn.Identity) else causal(module, f"{path}.{name}")
        if shortcut and (shortcut.kernel_t, shortcut.kernel) != (1, 1):
            raise LoweringError(f"{path}.{name} must be a 1x1x1 convolution; it is {shortcut}.")
        own = shortcut or entry == self.kept
        dst = self.store(conv.out_channels, self.spec.px, self.spec.frames) if own else entry
        norm = self.norm(block, path, norm2)
        self.steps.append(Step(self.at, dst, conv, norm, residual=Residual(entry, shortcut)))
        self.at = dst

    def attention(self, block: nn.Module, path: str) -> None:
        """Queries, keys and values; attention within each frame; the projection, added."""
        only(block, path, {"norm", "to_qkv", "proj"})
        entry, channels = self.at, self.spec.channels
        qkv, proj = (
            of_frames(child(block, path, name), f"{path}.{name}", Halo(0, 0), 0)
            for name in ("to_qkv", "proj")
        )
        if qkv.out_channels != 3 * channels or (qkv.kernel, proj.kernel) != (1, 1):
            raise LoweringError(f"{path} must attend with one head of {channels} channels.")
        self.put(qkv, self.norm(block, path, "norm", activated=False))
        self.put(Attend(path, channels))
        self.steps.append(Step(self.at, entry, proj, residual=Residual(entry)))
        self.at = entry

    def resample(self, module: nn.Module, path: str) -> None:
        """Half or twice the size, and of the frames where there is a convolution of time; a clip's
        first frame goes past it.
        """
        only(module, path, {"resample", "time_conv"})
        mode = cast("Any", module).mode
        timed = mode.endswith("3d")
        conv = part_of(module, path, "resample.1")
        if mode.startswith("downsample"):
            self.put(of_frames(conv, f"{path}.resample.1", Halo(0, 1), 0))
            if timed:
                self._retime(module, path, Rate(down=2, first=First.BYPASS))
        elif mode.startswith("upsample"):
            if timed:
                self._retime(module, path, Rate(up=2, first=First.APART))
            self.put(of_frames(conv, f"{path}.resample.1", Halo(1, 1), 1), upscale=2)
        else:
            raise LoweringError(f"{path} resamples by {mode!r}, which the engine does not know.")

    def _retime(self, module: nn.Module, path: str, rate: Rate) -> None:
        conv = of_time(child(module, path, "time_conv"), f"{path}.time_conv", rate)
        self.put(conv, rate=rate)

    def level(self, part: nn.Module, path: str) -> None:
        """Parts beside a shortcut around all of them."""
        only(part, path, {"resnets", "downsampler", "upsampler", *self.dialect.levels, _SHORTCUT})
        entry = self.kept = self.at
        for name in ("resnets", *self.dialect.levels):
            self.parts(part, path, name)
        for name in ("downsampler", "upsampler"):
            if isinstance(sampler := getattr(part, name, None), nn.Module):
                self.resample(plain(sampler), f"{path}.{name}")
        self.kept = None
        if isinstance(shortcut := getattr(part, _SHORTCUT, None), nn.Module):
            self._shortcut(entry, shortcut, f"{path}.{_SHORTCUT}")

    def _shortcut(self, entry: int, module: nn.Module, path: str) -> None:
        """What a level began with, added to what it made."""
        main, spec, (mix, rate) = self.at, self.spec, folding(module, path)
        in_place = mix.makes_px * rate.up == 1
        dst = main if in_place else self.store(spec.channels, spec.px, spec.frames)
        self.steps.append(Step(entry, dst, mix, residual=Residual(main), rate=rate))
        self.at = dst

    def parts(self, coder: nn.Module, path: str, name: str) -> None:
        """A list of parts, of which some may be lists of parts themselves."""
        for i, part in enumerate(children(coder, name)):
            where = f"{path}.{name}.{i}"
            if hasattr(part, "resnets") and not hasattr(part, _SHORTCUT):
                only(part, where, {"resnets", "upsamplers"})
                self.parts(part, where, "resnets")
                self.parts(part, where, "upsamplers")
            elif hasattr(part, _SHORTCUT):
                self.level(part, where)
            elif hasattr(part, "resample"):
                self.resample(part, where)
            elif hasattr(part, "to_qkv"):
                self.attention(part, where)
            else:
                self.resnet(part, where)


def _samplers(coder: nn.Module) -> tuple[int, int]:
    """By how much the samplers of an encoder or decoder change a side, and the number of frames."""
    modes = [str(getattr(part, "mode", "")) for part in coder.modules()]
    timed = sum(mode in ("downsample3d", "upsample3d") for mode in modes)
    resampling = timed + sum(mode in ("downsample2d", "upsample2d") for mode in modes)
    return 2**resampling, 2**timed


def _channels(conv: nn.Module) -> int:
    """How many channels a convolution reads."""
    return int(cast("Any", conv).weight.shape[1])


def _checked(module: nn.Module, name: str) -> nn.Module:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own."""
    check_doors(module, DOORS)
    coder = child(module, "vae", name)
    check(coder, name, KNOWN)
    return plain(coder)


def _quant(build: _Builder, module: nn.Module, name: str) -> None:
    """A 1x1x1 convolution beside the latents, which belongs to the whole VAE."""
    part = child(module, "vae", name)
    check(part, name, KNOWN)
    build.put(causal(part, name))


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, c, t, h, w] to moments [b, 2z, n, h/r,
    w/r], r being 8 or, for Wan 2.2, 16.

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect, coder = dialect_of(module), _checked(module, "encoder")
    conv_in = part_of(coder, "encoder", dialect.conv_in)
    first = of_squares(causal(conv_in, f"encoder.{dialect.conv_in}"), patch_of(module))
    build = _Builder([StoreSpec(first.in_channels, 1, 1)], dialect=dialect)
    build.put(first)
    build.parts(coder, "encoder", dialect.levels[0])
    put_middle(build, coder, "encoder", dialect.middle)
    build.conv(coder, "encoder", dialect.conv_out, build.norm(coder, "encoder", dialect.norm_out))
    _quant(build, module, dialect.after)
    return build.program("encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/r, w/r] to sample frames [b, c, t, h,
    w], r being 8 or, for Wan 2.2, 16.

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect, coder = dialect_of(module), _checked(module, "decoder")
    channels = _channels(child(module, "vae", dialect.before))
    (px, frames), patch = _samplers(coder), patch_of(module)
    build = _Builder([StoreSpec(channels, px * patch, frames)], dialect=dialect)
    _quant(build, module, dialect.before)
    build.conv(coder, "decoder", dialect.conv_in)
    put_middle(build, coder, "decoder", dialect.middle)
    build.parts(coder, "decoder", dialect.levels[1])
    conv_out = part_of(coder, "decoder", dialect.conv_out)
    last = into_squares(causal(conv_out, f"decoder.{dialect.conv_out}"), patch)
    build.put(last, build.norm(coder, "decoder", dialect.norm_out))
    return build.program("decoder")
