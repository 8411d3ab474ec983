"""Which program does a live Wan 2.1 VAE stand for? It is Qwen-Image's too.

1. Three classes hold this network: diffusers' `AutoencoderKLWan` and `AutoencoderKLQwenImage`, and
   ComfyUI's `WanVAE`, whose names are the authors' own. A `Dialect` has what differs: names alone.
2. `lower_encoder` and `lower_decoder` walk the parts, tell each by what it holds, and put one step
   for each convolution: norms of single voxels, zeros before the clip, a first frame that goes past
   every convolution of time, and attention among the voxels of a frame in the middle.
3. Every part has to be what its class is known for (`KNOWN`, by `attributes`).

Nothing here depends on more than a frame's voxels and the frames before: the result is the same
whatever the chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import STEADY, Attend, Conv, First, Form, Norm, Rate, Start
from ..program.steps import Program, Residual, Step, StoreSpec
from .attributes import HOST_OPERATIONS, TORCH, Known, check, check_doors, plain
from .building import Builder, child, children, geometry, only, pair

_EPS = 1e-12
"""The least length that a voxel is divided by, as `torch.nn.functional.normalize` has it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one class calls the parts of the network; several names stand for a path.

    before, after: the 1x1x1 convolutions around the latents, as the encoder's last and the
        decoder's first. middle: residual block, attention, residual block.
    resnet: norm, convolution, norm, convolution, and the shortcut where channels change.
    """

    after: str
    before: str
    conv_in: str
    levels: tuple[str, str]
    middle: tuple[str, str, str]
    norm_out: str
    conv_out: str
    resnet: tuple[str, str, str, str, str]


DIFFUSERS = Dialect(
    after="quant_conv",
    before="post_quant_conv",
    conv_in="conv_in",
    levels=("down_blocks", "up_blocks"),
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm_out="norm_out",
    conv_out="conv_out",
    resnet=("norm1", "conv1", "norm2", "conv2", "conv_shortcut"),
)
AUTHORS = Dialect(
    after="conv1",
    before="conv2",
    conv_in="conv1",
    levels=("downsamples", "upsamples"),
    middle=("middle.0", "middle.1", "middle.2"),
    norm_out="head.0",
    conv_out="head.2",
    resnet=("residual.0", "residual.2", "residual.3", "residual.6", "shortcut"),
)

_WAN = "diffusers.models.autoencoders.autoencoder_kl_wan.Wan"
_QWEN = "diffusers.models.autoencoders.autoencoder_kl_qwenimage.QwenImage"
_HOST = "comfy.ldm.wan.vae."


def _doubles(module: nn.Module) -> str | None:
    scale, mode = cast("Any", module).scale_factor, cast("Any", module).mode
    if (scale, mode) in (((2.0, 2.0), "nearest-exact"), ((2.0, 2.0), "nearest")):
        return None
    return f"must double height and width by nearest; it has {scale}, {mode!r}."


def _pads_below(module: nn.Module) -> str | None:
    padding = cast("Any", module).padding
    return None if tuple(padding) == (0, 1, 0, 1) else f"must pad right and bottom; {padding}."


def _scales_by_channels(module: nn.Module) -> str | None:
    norm = cast("Any", module)
    channels = norm.gamma.shape[0]
    if norm.channel_first and norm.gamma.numel() == channels and norm.scale == channels**0.5:
        return None
    return f"must scale {channels} channels by their root; it is {norm}, scale {norm.scale}."


_PLAIN_NAMES = ("Resample", "ResidualBlock", "AttentionBlock", "Encoder3d", "Decoder3d")

KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    "torch.nn.modules.container.Sequential": Known(),
    "torch.nn.modules.upsampling.Upsample": Known(rule=_doubles),
    "torch.nn.modules.padding.ZeroPad2d": Known(rule=_pads_below),
    f"{_HOST}CausalConv3d": HOST_OPERATIONS["comfy.ops.disable_weight_init.Conv3d"],
    f"{_HOST}RMS_norm": Known(rule=_scales_by_channels),
    **{f"{_HOST}{name}": Known() for name in _PLAIN_NAMES},
    **{
        f"{prefix}{name}": known
        for prefix in (_WAN, _QWEN)
        for name, known in (
            ("CausalConv3d", TORCH["torch.nn.modules.conv.Conv3d"]),
            ("RMS_norm", Known(rule=_scales_by_channels)),
            ("Upsample", Known(rule=_doubles)),
            *((name, Known()) for name in (*_PLAIN_NAMES, "MidBlock", "UpBlock")),
        )
    },
}
"""The classes of parts that the engine runs, and what it relies on in them."""

_CODERS = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
DOORS = {
    "diffusers.models.autoencoders.autoencoder_kl_wan.AutoencoderKLWan": _CODERS,
    "diffusers.models.autoencoders.autoencoder_kl_qwenimage.AutoencoderKLQwenImage": _CODERS,
    f"{_HOST}WanVAE": ("encode", "decode"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""


def owns(module: nn.Module) -> bool:
    """Whether a module is this network by its parts, whichever class holds it."""
    coder = cast("Any", getattr(module, "decoder", None))
    if all(hasattr(coder, name) for name in ("middle", "head", "upsamples")):
        return True
    blocks = getattr(getattr(coder, "mid_block", None), "attentions", None) or [None]
    return hasattr(blocks[0], "to_qkv")


def _dialect(module: nn.Module) -> Dialect:
    return AUTHORS if hasattr(getattr(module, "decoder", None), "middle") else DIFFUSERS


def _part(module: nn.Module, path: str, name: str) -> nn.Module:
    """The part called `name`, which may be a path of several names."""
    for each in name.split("."):
        module, path = child(module, path, each), f"{path}.{each}"
    return module


def _padding(module: nn.Module) -> tuple[int, ...]:
    """What a causal convolution pads before its frames, and above and left of them."""
    own = getattr(module, "_padding", None)
    padding = cast("Any", module).padding
    if isinstance(own, int):  # ComfyUI's, in time alone
        return (own, *padding[1:])
    if (
        own is None
        or len(own) != 6
        or own[0] != own[1]
        or own[2] != own[3]
        or own[5]
        or any(padding)
    ):
        return (-1,)
    return own[4], own[2], own[0]


def _causal(module: nn.Module, path: str) -> Conv:
    """A convolution that sees zeros before the clip and around the picture."""
    if not isinstance(module, nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    frames, *sides = module.weight.shape[2:]
    half = [side // 2 for side in sides]
    if _padding(module) != (frames - 1, *half) or set(module.stride) != {1}:
        raise LoweringError(f"{path} must keep the size of what it reads; it is {module}.")
    return _from_zeros(geometry(module, path, Halo(half[0], half[0])))


def _from_zeros(conv: Conv) -> Conv:
    return replace(conv, start=Start.ZEROS)


def _of_frames(module: nn.Module, path: str, pad: Halo, padding: int) -> Conv:
    """A convolution of single frames that pads by `padding` itself."""
    if not isinstance(module, nn.Conv2d):
        raise LoweringError(f"{path} must be a 2-D convolution; it is {type(module).__name__}.")
    if pair(module.padding, path) != (padding, padding):
        raise LoweringError(f"{path} must pad by {padding}; it is {module}.")
    return _from_zeros(geometry(module, path, pad))


def _of_time(module: nn.Module, path: str, rate: Rate) -> Conv:
    """A convolution of three frames at each place, that makes `rate` of them."""
    conv = cast("nn.Conv3d", module)
    rows, channels, *taps = conv.weight.shape
    found = (tuple(taps), tuple(conv.stride), rows)
    wanted = ((3, 1, 1), (rate.down, 1, 1), channels * rate.up)
    if found != wanted or _padding(conv) != (2 * (rate.up > 1), 0, 0):
        raise LoweringError(f"{path} must see three frames at each place; it is {module}.")
    return Conv(path, channels, channels, 3, 1, 1, Halo(0, 0), Start.ZEROS)


@dataclass(slots=True)
class _Builder(Builder):
    """The parts of Wan 2.1, by the names of `dialect`."""

    dialect: Dialect = DIFFUSERS

    def put(
        self, mix: Conv | Attend, norm: Norm | None = None, upscale: int = 1, rate: Rate = STEADY
    ) -> None:
        """One step from the newest result to a store of its own."""
        px = self.spec.px * mix.stride // upscale
        frames = self.spec.frames * rate.down // rate.up
        dst = self.store(mix.out_channels, px, frames)
        self.steps.append(Step(self.at, dst, mix, norm, upscale=upscale, rate=rate))
        self.at = dst

    def norm(self, owner: nn.Module, path: str, name: str, *, activated: bool = True) -> Norm:
        """The norm called `name`, followed by SiLU where it is activated."""
        gamma = cast("Any", _part(owner, path, name)).gamma
        channels = gamma.shape[0]
        return Norm(f"{path}.{name}", channels, 1, _EPS, form=Form.L2, activated=activated)

    def conv(self, owner: nn.Module, path: str, name: str, norm: Norm | None = None) -> None:
        """The causal convolution called `name`."""
        self.put(_causal(_part(owner, path, name), f"{path}.{name}"), norm)

    def resnet(self, block: nn.Module, path: str) -> None:
        """Two convolutions, the second added to what the block began with."""
        norm1, conv1, norm2, conv2, name = self.dialect.resnet
        only(block, path, {part.partition(".")[0] for part in self.dialect.resnet})
        entry = self.at
        self.conv(block, path, conv1, self.norm(block, path, norm1))
        conv = _causal(_part(block, path, conv2), f"{path}.{conv2}")
        module = child(block, path, name)
        shortcut = None if isinstance(module, nn.Identity) else _causal(module, f"{path}.{name}")
        if shortcut and (shortcut.kernel_t, shortcut.kernel) != (1, 1):
            raise LoweringError(f"{path}.{name} must be a 1x1x1 convolution; it is {shortcut}.")
        dst = self.store(conv.out_channels, self.spec.px, self.spec.frames) if shortcut else entry
        norm = self.norm(block, path, norm2)
        self.steps.append(Step(self.at, dst, conv, norm, residual=Residual(entry, shortcut)))
        self.at = dst

    def attention(self, block: nn.Module, path: str) -> None:
        """Queries, keys and values; attention within each frame; the projection, added."""
        only(block, path, {"norm", "to_qkv", "proj"})
        entry, channels = self.at, self.spec.channels
        qkv, proj = (
            _of_frames(child(block, path, name), f"{path}.{name}", Halo(0, 0), 0)
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
        conv = _part(module, path, "resample.1")
        if mode.startswith("downsample"):
            self.put(_of_frames(conv, f"{path}.resample.1", Halo(0, 1), 0))
            if timed:
                self._retime(module, path, Rate(down=2, first=First.BYPASS))
        elif mode.startswith("upsample"):
            if timed:
                self._retime(module, path, Rate(up=2, first=First.APART))
            self.put(_of_frames(conv, f"{path}.resample.1", Halo(1, 1), 1), upscale=2)
        else:
            raise LoweringError(f"{path} resamples by {mode!r}, which the engine does not know.")

    def _retime(self, module: nn.Module, path: str, rate: Rate) -> None:
        conv = _of_time(child(module, path, "time_conv"), f"{path}.time_conv", rate)
        self.put(conv, rate=rate)

    def middle(self, coder: nn.Module, name: str) -> None:
        """The three blocks at the smallest size."""
        first, attention, last = (
            (_part(coder, name, part), f"{name}.{part}") for part in self.dialect.middle
        )
        self.resnet(*first)
        self.attention(*attention)
        self.resnet(*last)

    def parts(self, coder: nn.Module, path: str, name: str) -> None:
        """A list of parts, of which some may be lists of parts themselves."""
        for i, part in enumerate(children(coder, name)):
            where = f"{path}.{name}.{i}"
            if hasattr(part, "resnets"):
                only(part, where, {"resnets", "upsamplers"})
                self.parts(part, where, "resnets")
                self.parts(part, where, "upsamplers")
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
    build.put(_causal(part, name))


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, c, t, h, w] to moments [b, 2z, n, h/8,
    w/8].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect, coder = _dialect(module), _checked(module, "encoder")
    channels = _channels(_part(coder, "encoder", dialect.conv_in))
    build = _Builder([StoreSpec(channels, 1, 1)], dialect=dialect)
    build.conv(coder, "encoder", dialect.conv_in)
    build.parts(coder, "encoder", dialect.levels[0])
    build.middle(coder, "encoder")
    build.conv(coder, "encoder", dialect.conv_out, build.norm(coder, "encoder", dialect.norm_out))
    _quant(build, module, dialect.after)
    return build.program("encoder")


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/8, w/8] to sample frames [b, c, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    dialect, coder = _dialect(module), _checked(module, "decoder")
    channels = _channels(child(module, "vae", dialect.before))
    px, frames = _samplers(coder)
    build = _Builder([StoreSpec(channels, px, frames)], dialect=dialect)
    _quant(build, module, dialect.before)
    build.conv(coder, "decoder", dialect.conv_in)
    build.middle(coder, "decoder")
    build.parts(coder, "decoder", dialect.levels[1])
    build.conv(coder, "decoder", dialect.conv_out, build.norm(coder, "decoder", dialect.norm_out))
    return build.program("decoder")
