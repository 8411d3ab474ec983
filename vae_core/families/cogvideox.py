"""Which program does a live module stand for?

1. `lower_encoder` and `lower_decoder` walk an `AutoencoderKLCogVideoX`, diffusers' or ComfyUI's own
   (the module names are the same), by attribute; neither class is imported.
2. Each convolution becomes one `Step`; norms, modulations, pooling, upsampling and residuals are
   fused into it.
3. Every submodule has to be one that is known, and to be what its class is known for (`KNOWN`, by
   `attributes`): another one raises `LoweringError` with its path, since it would give wrong
   pixels.

A live module may be changed at any time, so that callers lower it anew for each run: this takes
some milliseconds.

No tensor is read here but for its shape; weights stay where they are and are named by path.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Norm, TimeMap
from ..program.steps import Program, Residual, Step, StoreSpec
from .attributes import HOST_OPERATIONS, TORCH, Known, check, check_doors
from .building import Builder, child, children, geometry, only, pair
from .cogvideox_keys import RATIOS

_DIFFUSERS = "diffusers.models.autoencoders.autoencoder_kl_cogvideox"
_HOST = "comfy.ldm.cogvideo.vae"


def _counts_its_taps(module: nn.Module) -> str | None:
    """The class takes the frames before a chunk by a number of its own."""
    taps, weight = cast("Any", module).time_kernel_size, cast("Any", module).conv.weight
    if taps == weight.shape[2]:
        return None
    return f"has time_kernel_size = {taps}; its convolution has {weight.shape[2]} taps in time."


def _uses_its_shortcut(module: nn.Module) -> str | None:
    """The class goes by channels, not by what it holds."""
    block = cast("Any", module)
    widens, held = block.in_channels != block.out_channels, hasattr(block, "conv_shortcut")
    if widens is held:
        return None
    return (
        f"has {'a' if held else 'no'} conv_shortcut, and goes from {block.in_channels} to"
        f" {block.out_channels} channels."
    )


KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    f"{_DIFFUSERS}.CogVideoXSafeConv3d": TORCH["torch.nn.modules.conv.Conv3d"],
    f"{_DIFFUSERS}.CogVideoXCausalConv3d": Known(rule=_counts_its_taps),
    f"{_DIFFUSERS}.CogVideoXResnetBlock3D": Known(rule=_uses_its_shortcut),
    f"{_HOST}.CausalConv3d": Known(rule=_counts_its_taps),
    **{
        name: Known()
        for name in (
            f"{_DIFFUSERS}.CogVideoXSpatialNorm3D",
            f"{_DIFFUSERS}.CogVideoXDownBlock3D",
            f"{_DIFFUSERS}.CogVideoXMidBlock3D",
            f"{_DIFFUSERS}.CogVideoXUpBlock3D",
            f"{_DIFFUSERS}.CogVideoXEncoder3D",
            f"{_DIFFUSERS}.CogVideoXDecoder3D",
            "diffusers.models.downsampling.CogVideoXDownsample3D",
            "diffusers.models.upsampling.CogVideoXUpsample3D",
            f"{_HOST}.SpatialNorm3D",
            f"{_HOST}.ResnetBlock3D",
            f"{_HOST}.DownBlock3D",
            f"{_HOST}.MidBlock3D",
            f"{_HOST}.UpBlock3D",
            f"{_HOST}.Encoder3D",
            f"{_HOST}.Decoder3D",
            f"{_HOST}.Downsample3D",
            f"{_HOST}.Upsample3D",
        )
    },
}
"""The classes of parts that the engine runs, and what it relies on in them."""

DOORS = {
    f"{_DIFFUSERS}.AutoencoderKLCogVideoX": (
        "encode",
        "decode",
        "_encode",
        "_decode",
        "tiled_encode",
        "tiled_decode",
    ),
    f"{_HOST}.AutoencoderKLCogVideoX": ("encode", "decode", "_decode_batched", "_decode_rolling"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""


def _plain_conv(module: nn.Module, path: str) -> Conv:
    """A convolution with zeros on every side, as its own `padding` says, that keeps the size."""
    if not isinstance(module, nn.Conv2d | nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    height, width = pair(module.padding, path)
    if height != width:
        raise LoweringError(
            f"{path} pads height by {height} and width by {width}; the engine pads both alike."
        )
    conv = geometry(module, path, Halo(height, height))
    ahead = module.padding[0] if len(module.padding) == 3 else 0
    if ahead or conv.stride != 1 or 2 * height != conv.kernel - 1:
        raise LoweringError(f"{path} must keep the size of what it reads; it is {module}.")
    return conv


def _halving_conv(module: nn.Module, path: str) -> Conv:
    """A convolution to half the size, whose owner pads right and bottom by one."""
    if not isinstance(module, nn.Conv2d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    conv = geometry(module, path, Halo(0, 1))
    if (conv.kernel, conv.stride, pair(module.padding, path)) != (3, 2, (0, 0)):
        raise LoweringError(f"{path} must have 3x3 taps, stride 2 and no padding; it is {module}.")
    return conv


def _causal_conv(module: nn.Module, path: str) -> Conv:
    if getattr(module, "pad_mode", None) == "replicate":
        raise LoweringError(
            f"{path} replicates at its edges (pad_mode='replicate'); the engine pads with zeros."
        )
    only(module, path, {"conv"})
    return _plain_conv(child(module, path, "conv"), f"{path}.conv")


def _group_norm(module: nn.Module, path: str) -> Norm:
    if not isinstance(module, nn.GroupNorm):
        raise LoweringError(f"{path} must be a GroupNorm; it is {type(module).__name__}.")
    return Norm(path, module.num_channels, module.num_groups, module.eps)


def _modulation(module: nn.Module, path: str, channels: int) -> str:
    conv = _causal_conv(module, path)
    if (conv.kernel_t, conv.kernel, conv.out_channels) != (1, 1, channels):
        raise LoweringError(
            f"{path} must be a 1x1x1 convolution to {channels} channels; it is {conv}."
        )
    return conv.path


def _norm(module: nn.Module, path: str) -> Norm:
    if isinstance(module, nn.GroupNorm):
        return _group_norm(module, path)
    only(module, path, {"norm_layer", "conv_y", "conv_b"})
    norm = _group_norm(child(module, path, "norm_layer"), f"{path}.norm_layer")
    scale, shift = (
        _modulation(child(module, path, name), f"{path}.{name}", norm.channels)
        for name in ("conv_y", "conv_b")
    )
    return Norm(norm.path, norm.channels, norm.groups, norm.eps, scale, shift)


class _Builder(Builder):
    """The parts of CogVideoX."""

    def conv(self, module: nn.Module, path: str, norm: Norm | None = None) -> None:
        conv = _causal_conv(module, path)
        dst = self.store(conv.out_channels, self.spec.px, self.spec.frames)
        self.steps.append(Step(self.at, dst, conv, norm))
        self.at = dst

    def resnet(self, block: nn.Module, path: str) -> None:
        """conv1 into a store of its own, conv2 back over the block's input where channels
        allow it.
        """
        only(block, path, {"norm1", "norm2", "conv1", "conv2", "conv_shortcut"})
        entry = self.at
        self.conv(
            child(block, path, "conv1"),
            f"{path}.conv1",
            _norm(child(block, path, "norm1"), f"{path}.norm1"),
        )
        conv = _causal_conv(child(block, path, "conv2"), f"{path}.conv2")
        shortcut = self._shortcut(block, path)
        dst = self.store(conv.out_channels, self.spec.px, self.spec.frames) if shortcut else entry
        norm = _norm(child(block, path, "norm2"), f"{path}.norm2")
        self.steps.append(Step(self.at, dst, conv, norm, residual=Residual(entry, shortcut)))
        self.at = dst

    @staticmethod
    def _shortcut(block: nn.Module, path: str) -> Conv | None:
        module = getattr(block, "conv_shortcut", None)
        if module is None:
            return None
        shortcut = _plain_conv(module, f"{path}.conv_shortcut")
        if (shortcut.kernel_t, shortcut.kernel) != (1, 1):
            raise LoweringError(
                f"{path}.conv_shortcut must be a 1x1x1 convolution; it is {shortcut}."
            )
        return shortcut

    def downsample(self, module: nn.Module, path: str) -> None:
        """Pairs of frames averaged, then a strided convolution padded right and bottom only."""
        only(module, path, {"conv"})
        pooled = bool(getattr(module, "compress_time", False))
        conv = _halving_conv(child(module, path, "conv"), f"{path}.conv")
        dst = self.store(
            conv.out_channels, self.spec.px * conv.stride, self.spec.frames * (2 if pooled else 1)
        )
        time_map = TimeMap.POOL_PAIRS if pooled else TimeMap.SAME
        self.steps.append(Step(self.at, dst, conv, time_map=time_map))
        self.at = dst

    def upsample(self, module: nn.Module, path: str) -> None:
        """Nearest upsampling in space, and in time where the module says so, then a convolution of
        each frame.
        """
        only(module, path, {"conv"})
        repeated = bool(getattr(module, "compress_time", False))
        conv = _plain_conv(child(module, path, "conv"), f"{path}.conv")
        dst = self.store(
            conv.out_channels, self.spec.px // 2, self.spec.frames // (2 if repeated else 1)
        )
        time_map = TimeMap.REPEAT_PAIRS if repeated else TimeMap.SAME
        self.steps.append(Step(self.at, dst, conv, time_map=time_map, upscale=2))
        self.at = dst

    def blocks(self, owner: nn.Module, path: str, name: str) -> None:
        for i, block in enumerate(children(owner, name)):
            sampler = "downsamplers" if name == "down_blocks" else "upsamplers"
            self.block(block, f"{path}.{name}.{i}", {"resnets", sampler})

    def block(self, block: nn.Module, path: str, known: Iterable[str]) -> None:
        only(block, path, known)
        for i, resnet in enumerate(children(block, "resnets")):
            self.resnet(resnet, f"{path}.resnets.{i}")
        for i, module in enumerate(children(block, "downsamplers")):
            self.downsample(module, f"{path}.downsamplers.{i}")
        for i, module in enumerate(children(block, "upsamplers")):
            self.upsample(module, f"{path}.upsamplers.{i}")


def owns(module: nn.Module) -> bool:
    """Whether a module is this network by its parts, whichever class holds it."""
    coder = getattr(module, "decoder", None)
    return hasattr(getattr(coder, "norm_out", None), "conv_y")


def _source(owner: nn.Module, name: str) -> int:
    """Channels that the first convolution of an encoder or decoder takes."""
    weight = cast(
        "torch.Tensor", child(child(owner, name, "conv_in"), f"{name}.conv_in", "conv").weight
    )
    return int(weight.shape[1])


def _check_whole(module: nn.Module) -> None:
    """What concerns the VAE rather than its encoder or decoder."""
    check_doors(module, DOORS)
    for name in ("quant_conv", "post_quant_conv"):
        if getattr(module, name, None) is not None:
            raise LoweringError(
                f"{name} is set: CogVideoX has none, and the engine does not run it. Load the VAE"
                f" with use_{name}=False."
            )


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, 3, t, h, w] to moments [b, 2c, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    _check_whole(module)
    encoder = child(module, "vae", "encoder")
    only(encoder, "encoder", {"conv_in", "down_blocks", "mid_block", "norm_out", "conv_out"})
    build = _Builder([StoreSpec(_source(encoder, "encoder"), 1, 1)])
    build.conv(child(encoder, "encoder", "conv_in"), "encoder.conv_in")
    build.blocks(encoder, "encoder", "down_blocks")
    return _finish(build, encoder, "encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, c, n, h/8, w/8] to sample frames [b, 3, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    _check_whole(module)
    decoder = child(module, "vae", "decoder")
    only(decoder, "decoder", {"conv_in", "mid_block", "up_blocks", "norm_out", "conv_out"})
    build = _Builder([StoreSpec(_source(decoder, "decoder"), RATIOS.px, RATIOS.frames)])
    build.conv(child(decoder, "decoder", "conv_in"), "decoder.conv_in")
    return _finish(build, decoder, "decoder")


def _finish(build: _Builder, owner: nn.Module, name: str) -> Program:
    """What both have: the middle block, a decoder's levels after it, the last norm and
    convolution.
    """
    build.block(child(owner, name, "mid_block"), f"{name}.mid_block", {"resnets"})
    build.blocks(owner, name, "up_blocks")
    norm = _norm(child(owner, name, "norm_out"), f"{name}.norm_out")
    build.conv(child(owner, name, "conv_out"), f"{name}.conv_out", norm)
    expected = (RATIOS.px, RATIOS.frames) if name == "encoder" else (1, 1)
    if (build.spec.px, build.spec.frames) != expected:
        raise LoweringError(
            f"{name} compresses by {build.spec}; CogVideoX does so by 8x8 in space and 4 in time."
        )
    check(owner, name, KNOWN)
    return build.program(name)
