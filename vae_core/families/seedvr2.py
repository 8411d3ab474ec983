"""Which program does a live SeedVR2 VAE stand for, ComfyUI's or the one that holds our files?

`lower_encoder` and `lower_decoder` walk the parts and put one step for each convolution. Norms take
the statistics of each frame, the middle attends among a frame's voxels, and a clip's first frame is
seen again in place of those before it. Where size grows, a convolution of single voxels makes all
that comes of a place, one beside the other in its channels; of the first frame the first of two is
kept.

Nothing here depends on more than a frame and the frames before: the result is the same whatever the
chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.layouts import Axis
from ..program.parts import Attend, Conv, Norm, Rate, Shuffle
from ..program.steps import Program, StoreSpec
from .attributes import HOST_OPERATIONS, TORCH, Known, check, check_doors, full_name, plain
from .building import child, children, only
from .by_frame import POINT, FrameBuilder, causal, channels_of, group_norm, linear
from .seedvr2_network import PARTS

_HOST = "comfy.ldm.seedvr.vae."
_HOST_CONV = HOST_OPERATIONS["comfy.ops.disable_weight_init.Conv3d"]
_HOST_PARTS = (
    "Encoder3D",
    "Decoder3D",
    "DownEncoderBlock3D",
    "UpDecoderBlock3D",
    "UNetMidBlock3D",
    "Downsample3D",
)
KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    **{full_name(part): Known() for part in PARTS},
    **{f"vae_core.families.seedvr2_network.{part.__name__}": Known() for part in PARTS},
    **{f"{_HOST}{name}": Known() for name in _HOST_PARTS},
    f"{_HOST}InflatedCausalConv3d": _HOST_CONV,
    f"{_HOST}ResnetBlock3D": Known({"output_scale_factor": (1.0,), "time_emb_proj": (None,)}),
    f"{_HOST}Upsample3D": Known({"spatial_ratio": (2,)}),
    f"{_HOST}Attention": Known(
        {
            "heads": (1,),
            "residual_connection": (True,),
            "rescale_output_factor": (1.0,),
            "spatial_norm": (None,),
        }
    ),
}
"""The classes of parts that the engine runs, and what it relies on in them."""

_DOORS = ("encode", "decode", "decode_", "_encode", "_decode", "slicing_encode", "slicing_decode")
DOORS = {
    f"{_HOST}VideoAutoencoderKLWrapper": (*_DOORS, "encode_tiled", "decode_tiled"),
    f"{_HOST}VideoAutoencoderKL": _DOORS,
}
"""The methods of a whole VAE by which its parts are run, for each class."""

_ORDER = (Axis.ROW, Axis.COLUMN, Axis.FRAME, Axis.CHANNEL)
_SIDE = 2


def owns(module: nn.Module) -> bool:
    """Whether a module is SeedVR2's by its parts, whichever class holds it."""
    levels = getattr(getattr(module, "decoder", None), "up_blocks", None) or [None]
    samplers = getattr(levels[0], "upsamplers", None) or [None]
    return hasattr(samplers[0], "upscale_conv")


class _Builder(FrameBuilder):
    """The parts of SeedVR2."""

    def conv(self, owner: nn.Module, path: str, name: str, norm: Norm | None = None) -> None:
        """The causal convolution called `name`."""
        self.put(causal(child(owner, path, name), f"{path}.{name}"), norm)

    def resnet(self, block: nn.Module, path: str) -> None:
        """Two convolutions, the second added to what the block began with."""
        only(block, path, {"norm1", "norm2", "conv1", "conv2", "conv_shortcut"})
        entry = self.at
        first, second = (
            group_norm(child(block, path, name), f"{path}.{name}") for name in ("norm1", "norm2")
        )
        self.conv(block, path, "conv1", first)
        conv, shortcut = causal(child(block, path, "conv2"), f"{path}.conv2"), None
        if getattr(block, "conv_shortcut", None) is not None:
            where = f"{path}.conv_shortcut"
            shortcut = causal(child(block, path, "conv_shortcut"), where)
            if (shortcut.kernel_t, shortcut.kernel) != (1, 1):
                raise LoweringError(f"{where} must be a 1x1x1 convolution; it is {shortcut}.")
        self.add(entry, conv, second, shortcut)

    def attention(self, block: nn.Module, path: str) -> None:
        """Queries, keys and values; attention within each frame; the projection, added."""
        only(block, path, {"group_norm", "to_q", "to_k", "to_v", "to_out"})
        entry, channels = self.at, self.spec.channels
        paths = tuple(f"{path}.{name}" for name in ("to_q", "to_k", "to_v"))
        made = [linear(child(block, path, name.rpartition(".")[2]), name) for name in paths]
        out = linear(children(block, "to_out")[0], f"{path}.to_out.0")
        if any((one.in_channels, one.out_channels) != (channels,) * 2 for one in (*made, out)):
            raise LoweringError(f"{path} must attend with one head of {channels} channels.")
        norm = group_norm(child(block, path, "group_norm"), f"{path}.group_norm", activated=False)
        self.put(Conv(paths[0], channels, 3 * channels, 1, 1, 1, POINT, beside=paths[1:]), norm)
        self.put(Attend(path, channels))
        self.add(entry, out)

    def middle(self, coder: nn.Module, path: str) -> None:
        """Attention between resnets, at the smallest size."""
        block = child(coder, path, "mid_block")
        path = f"{path}.mid_block"
        only(block, path, {"resnets", "attentions"})
        first, *resnets = children(block, "resnets")
        self.resnet(first, f"{path}.resnets.0")
        pairs = zip(children(block, "attentions"), resnets, strict=True)
        for i, (attention, resnet) in enumerate(pairs):
            self.attention(attention, f"{path}.attentions.{i}")
            self.resnet(resnet, f"{path}.resnets.{i + 1}")

    def levels(self, coder: nn.Module, path: str, name: str) -> None:
        """Resnets, and what changes the size after them, level by level."""
        for i, level in enumerate(children(coder, name)):
            where = f"{path}.{name}.{i}"
            only(level, where, {"resnets", "downsamplers", "upsamplers"})
            for j, resnet in enumerate(children(level, "resnets")):
                self.resnet(resnet, f"{where}.resnets.{j}")
            for j, sampler in enumerate(children(level, "downsamplers")):
                self.downsample(sampler, f"{where}.downsamplers.{j}")
            for j, sampler in enumerate(children(level, "upsamplers")):
                self.upsample(sampler, f"{where}.upsamplers.{j}")

    def downsample(self, module: nn.Module, path: str) -> None:
        """To half the size, and of the frames where the convolution says so."""
        only(module, path, {"conv"})
        conv = child(module, path, "conv")
        mix, down = causal(conv, f"{path}.conv", Halo(0, 1)), int(cast("Any", conv).stride[0])
        if (mix.kernel_t, mix.kernel, mix.stride) != (2 * down - 1, 3, 2):
            raise LoweringError(f"{path}.conv must halve what it reads; it is {conv}.")
        self.put(mix, rate=Rate(down=down))

    def upsample(self, module: nn.Module, path: str) -> None:
        """To twice the size, and of the frames where there are enough channels."""
        only(module, path, {"upscale_conv", "conv"})
        where, channels = f"{path}.upscale_conv", self.spec.channels
        frames = _frames_made(module, path)
        made = causal(child(module, path, "upscale_conv"), where)
        wanted = (channels, channels * frames * _SIDE**2, 1, 1)
        if (made.in_channels, made.out_channels, made.kernel_t, made.kernel) != wanted:
            raise LoweringError(f"{where} must make squares of {channels} channels; it is {made}.")
        shuffle = Shuffle(frames, _ORDER, _ORDER, takes=0)
        self.put(
            Conv(where, channels, channels, 1, 1, 1, POINT, makes_px=_SIDE, shuffle=shuffle),
            rate=Rate(up=frames),
        )
        self.conv(module, path, "conv")

    def ending(self, coder: nn.Module, path: str) -> None:
        """The last norm and convolution."""
        norm = group_norm(child(coder, path, "conv_norm_out"), f"{path}.conv_norm_out")
        self.conv(coder, path, "conv_out", norm)


def _frames_made(module: nn.Module, path: str) -> int:
    """How many frames an upsampler makes of one: as many as there are channels for."""
    made, read = channels_of(child(module, path, "upscale_conv"))
    frames = made // (read * _SIDE**2)
    if frames not in (1, 2) or getattr(module, "temporal_ratio", frames) != frames:
        raise LoweringError(f"{path} must make one or two frames of each; it makes {frames}.")
    return frames


def _checked(module: nn.Module, name: str, blocks: str) -> nn.Module:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own."""
    check_doors(module, DOORS)
    coder = child(module, "vae", name)
    check(coder, name, KNOWN)
    only(coder, name, {"conv_in", blocks, "mid_block", "conv_norm_out", "conv_out"})
    return plain(coder)


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, c, t, h, w] to moments [b, 2z, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder = _checked(module, "encoder", "down_blocks")
    _, channels = channels_of(child(coder, "encoder", "conv_in"))
    build = _Builder([StoreSpec(channels, 1, 1)])
    build.conv(coder, "encoder", "conv_in")
    build.levels(coder, "encoder", "down_blocks")
    build.middle(coder, "encoder")
    build.ending(coder, "encoder")
    return build.program("encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/8, w/8] to sample frames [b, c, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder = _checked(module, "decoder", "up_blocks")
    _, channels = channels_of(child(coder, "decoder", "conv_in"))
    px, frames = 1, 1
    for i, level in enumerate(children(coder, "up_blocks")):
        for j, sampler in enumerate(children(level, "upsamplers")):
            px *= _SIDE
            frames *= _frames_made(sampler, f"decoder.up_blocks.{i}.upsamplers.{j}")
    build = _Builder([StoreSpec(channels, px, frames)])
    build.conv(coder, "decoder", "conv_in")
    build.middle(coder, "decoder")
    build.levels(coder, "decoder", "up_blocks")
    build.ending(coder, "decoder")
    return build.program("decoder")
