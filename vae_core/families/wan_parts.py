"""What are the parts of Wan's VAEs called, and what does the engine rely on in them?

A `Dialect` has what differs between the classes that hold such a network: names alone. `KNOWN` and
`DOORS` have the classes themselves. The functions read the geometry of one convolution each, and
refuse what they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Fold, Rate, Start
from .attributes import HOST_OPERATIONS, TORCH, Known
from .building import geometry, pair


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

_DIFFUSERS = "diffusers.models.autoencoders.autoencoder_kl_wan."
_WAN = f"{_DIFFUSERS}Wan"
_QWEN = "diffusers.models.autoencoders.autoencoder_kl_qwenimage.QwenImage"
_HOST = "comfy.ldm.wan.vae."
_HOST_2_2 = "comfy.ldm.wan.vae2_2."


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


_FOLDS = ("AvgDown3D", "DupUp3D")
_HOST_LEVELS = ("Down_ResidualBlock", "Up_ResidualBlock")
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
    **{f"{_HOST_2_2}{name}": Known() for name in (*_PLAIN_NAMES, *_FOLDS, *_HOST_LEVELS)},
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
    **{f"{_DIFFUSERS}{name}": Known() for name in _FOLDS},
    **{f"{_WAN}{name}": Known() for name in ("ResidualDownBlock", "ResidualUpBlock")},
}
"""The classes of parts that the engine runs, and what it relies on in them."""

_CODERS = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
DOORS = {
    f"{_DIFFUSERS}AutoencoderKLWan": _CODERS,
    "diffusers.models.autoencoders.autoencoder_kl_qwenimage.AutoencoderKLQwenImage": _CODERS,
    f"{_HOST}WanVAE": ("encode", "decode"),
    f"{_HOST_2_2}WanVAE": ("encode", "decode"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""


def dialect_of(module: nn.Module) -> Dialect:
    return AUTHORS if hasattr(getattr(module, "decoder", None), "middle") else DIFFUSERS


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


def causal(module: nn.Module, path: str) -> Conv:
    """A convolution that sees zeros before the clip and around the picture."""
    if not isinstance(module, nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    frames, *sides = module.weight.shape[2:]
    half = [side // 2 for side in sides]
    if _padding(module) != (frames - 1, *half) or set(module.stride) != {1}:
        raise LoweringError(f"{path} must keep the size of what it reads; it is {module}.")
    return from_zeros(geometry(module, path, Halo(half[0], half[0])))


def from_zeros(conv: Conv) -> Conv:
    return replace(conv, start=Start.ZEROS)


def of_frames(module: nn.Module, path: str, pad: Halo, padding: int) -> Conv:
    """A convolution of single frames that pads by `padding` itself."""
    if not isinstance(module, nn.Conv2d):
        raise LoweringError(f"{path} must be a 2-D convolution; it is {type(module).__name__}.")
    if pair(module.padding, path) != (padding, padding):
        raise LoweringError(f"{path} must pad by {padding}; it is {module}.")
    return from_zeros(geometry(module, path, pad))


def of_time(module: nn.Module, path: str, rate: Rate) -> Conv:
    """A convolution of three frames at each place, that makes `rate` of them."""
    conv = cast("nn.Conv3d", module)
    rows, channels, *taps = conv.weight.shape
    found = (tuple(taps), tuple(conv.stride), rows)
    wanted = ((3, 1, 1), (rate.down, 1, 1), channels * rate.up)
    if found != wanted or _padding(conv) != (2 * (rate.up > 1), 0, 0):
        raise LoweringError(f"{path} must see three frames at each place; it is {module}.")
    return Conv(path, channels, channels, 3, 1, 1, Halo(0, 0), Start.ZEROS)


def patch_of(module: nn.Module) -> int:
    """Elements along a side of the squares that a VAE puts side by side in the channels."""
    if f"{type(getattr(module, 'decoder', None)).__module__}." == _HOST_2_2:
        return 2
    return getattr(getattr(module, "config", None), "patch_size", None) or 1


def of_squares(conv: Conv, px: int) -> Conv:
    """A convolution of squares of `px` x `px` elements, as one of the elements themselves."""
    if px == 1:
        return conv
    pad = Halo(conv.pad.before * px, conv.pad.after * px)
    channels, kernel = conv.in_channels // px**2, conv.kernel * px
    found = replace(conv, in_channels=channels, kernel=kernel, stride=px, pad=pad)
    return replace(found, sees_px=px)


def into_squares(conv: Conv, px: int) -> Conv:
    """A convolution that makes squares of `px` x `px` elements."""
    return replace(conv, out_channels=conv.out_channels // px**2, makes_px=px)


def folding(module: nn.Module, path: str) -> tuple[Conv, Rate]:
    """A shortcut that moves values between places and channels."""
    fold = cast("Any", module)
    frames, side = int(fold.factor_t), int(fold.factor_s)
    ends = int(fold.in_channels), int(fold.out_channels)
    if hasattr(fold, "repeats"):
        made = Fold(frames, side, spreads=True)
        conv = Conv(path, *ends, 1, 1, 1, Halo(0, 0), Start.ZEROS, makes_px=side, fold=made)
        return conv, Rate(up=frames)
    made = Fold(frames, side, spreads=False)
    conv = Conv(path, *ends, frames, side, side, Halo(0, 0), Start.ZEROS, fold=made)
    return conv, Rate(down=frames)
