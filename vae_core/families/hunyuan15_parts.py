"""What are the parts of HunyuanVideo 1.5's VAE called, and what does the engine rely on in them?

A `Dialect` has what differs between the classes that hold such a network: names alone. `KNOWN` and
`DOORS` have the classes themselves. The functions read the geometry of one part each, and refuse
what they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Edge, First, Fold, Packing, Rate
from .attributes import HOST_OPERATIONS, TORCH, Known
from .building import child, geometry


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one class calls the parts of the network; several names stand for a path.

    levels: of encoder and decoder. blocks: in a level. samplers: at a level's end, of encoder and
        decoder.
    middle: residual block, attention, residual block. attention: queries, keys, values, projection.
    shortcut: of a residual block where channels change.
    timed: attributes that say whether a sampler changes the number of frames, likewise.
    """

    levels: tuple[str, str]
    blocks: str
    samplers: tuple[str, str]
    middle: tuple[str, str, str]
    attention: tuple[str, str, str, str]
    shortcut: str
    timed: tuple[str, str]


DIFFUSERS = Dialect(
    levels=("down_blocks", "up_blocks"),
    blocks="resnets",
    samplers=("downsamplers.0", "upsamplers.0"),
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    attention=("to_q", "to_k", "to_v", "proj_out"),
    shortcut="conv_shortcut",
    timed=("add_temporal_downsample", "add_temporal_upsample"),
)
AUTHORS = Dialect(
    levels=("down", "up"),
    blocks="block",
    samplers=("downsample", "upsample"),
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    attention=("q", "k", "v", "proj_out"),
    shortcut="nin_shortcut",
    timed=("tds", "tus"),
)

_DIFFUSERS = "diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15."
_PARTS = f"{_DIFFUSERS}HunyuanVideo15"
_HOST = "comfy.ldm.hunyuan_video.vae_refiner."
_SHARED = "comfy.ldm.modules.diffusionmodules.model."


def replicates(module: nn.Module) -> str | None:
    conv = cast("Any", module)
    taps = conv.conv.kernel_size[0]
    padding = (*(taps // 2,) * 4, taps - 1, 0)
    if conv.pad_mode == "replicate" and tuple(conv.time_causal_padding) == padding:
        return None
    return f"must replicate {padding}; {conv.pad_mode}, {conv.time_causal_padding}."


def _scales_by_channels(module: nn.Module) -> str | None:
    norm = cast("Any", module)
    channels = norm.gamma.shape[0]
    first = getattr(norm, "channel_first", True)
    if first and norm.gamma.numel() == channels and norm.scale == channels**0.5:
        return None
    return f"must scale {channels} channels by their root; it is {norm}, scale {norm.scale}."


KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    "torch.nn.modules.module.Module": Known(),
    "comfy.ops.disable_weight_init.Linear": Known(),
    "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer": Known(),
    f"{_PARTS}CausalConv3d": Known(rule=replicates),
    f"{_PARTS}RMS_norm": Known(rule=_scales_by_channels),
    **{
        f"{_PARTS}{name}": Known()
        for name in (
            *("AttnBlock", "Upsample", "Downsample", "ResnetBlock", "MidBlock", "DownBlock3D"),
            *("UpBlock3D", "Encoder3D", "Decoder3D"),
        )
    },
    f"{_HOST}RMS_norm": Known(rule=_scales_by_channels),
    **{
        f"{_HOST}{name}": Known({"refiner_vae": (True,)})
        for name in ("DnSmpl", "UpSmpl", "Encoder", "Decoder")
    },
    **{f"{_SHARED}{name}": Known() for name in ("ResnetBlock", "AttnBlock", "CarriedConv3d")},
    **{f"{_HOST}{name}": Known() for name in ("HunyuanRefinerResnetBlock", "NoPadConv3d")},
}
"""The classes of parts that the engine runs, and what it relies on in them."""

DOORS = {
    f"{_DIFFUSERS}AutoencoderKLHunyuanVideo15": (
        *("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode"),
    ),
    "comfy.ldm.models.autoencoder.AutoencodingEngine": ("encode", "decode"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""


def dialect_of(module: nn.Module) -> Dialect:
    return AUTHORS if hasattr(getattr(module, "decoder", None), "mid") else DIFFUSERS


def causal(module: nn.Module, path: str) -> Conv:
    """A convolution of 3x3x3 that sees a clip's first frame before it, and its edges around it."""
    inner, path = child(module, path, "conv"), f"{path}.conv"
    conv = _convolution(inner, path, Halo(1, 1))
    if (conv.kernel_t, conv.kernel) != (3, 3):
        raise LoweringError(f"{path} must see 3x3x3 voxels; it is {inner}.")
    return replace(conv, edge=Edge.REPLICATE)


def pointwise(module: nn.Module, path: str) -> Conv:
    """A convolution of 1x1x1, which ComfyUI may have inside another part."""
    if isinstance(inner := getattr(module, "conv", None), nn.Module):
        module, path = inner, f"{path}.conv"
    conv = _convolution(module, path, Halo(0, 0))
    if (conv.kernel_t, conv.kernel) != (1, 1):
        raise LoweringError(f"{path} must be a 1x1x1 convolution; it is {module}.")
    return conv


def _convolution(module: nn.Module, path: str, pad: Halo) -> Conv:
    if not isinstance(module, nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    if any(module.padding) or set(module.stride) != {1}:
        raise LoweringError(f"{path} must neither pad nor pass over anything; it is {module}.")
    return geometry(module, path, pad)


def shuffling(conv: Conv, frames: int) -> Conv:
    """A convolution that makes squares of 2x2 in `frames` frames of each place, its rows place by
    place.
    """
    places = 4 * frames
    if conv.out_channels % places:
        raise LoweringError(f"{conv.path} must make {places} places of one; it is {conv}.")
    channels = conv.out_channels // places
    return replace(conv, out_channels=channels, makes_px=2, packing=Packing.PLACES)


def joining(path: str, channels: int, made: int, frames: int) -> tuple[Conv, Rate]:
    """What puts squares of 2x2 in `frames` frames side by side, or their means."""
    fold = Fold(frames, 2, spreads=False, packing=Packing.PLACES)
    conv = Conv(path, channels, made, frames, 2, 2, Halo(0, 0), fold=fold)
    return conv, rate_of(down=frames)


def rate_of(up: int = 1, down: int = 1) -> Rate:
    """The rate of a sampler, to which a clip's first frame is a picture where frames change."""
    return Rate(up, down, First.PICTURE) if up * down > 1 else Rate()


def means(path: str, channels: int, made: int) -> Conv:
    """Means of runs of channels at each place."""
    fold = Fold(1, 1, spreads=False, packing=Packing.PLACES)
    return Conv(path, channels, made, 1, 1, 1, Halo(0, 0), fold=fold)


def repeats(path: str, channels: int, made: int) -> Conv:
    """Each channel repeated."""
    fold = Fold(1, 1, spreads=True, packing=Packing.PLACES)
    return Conv(path, channels, made, 1, 1, 1, Halo(0, 0), fold=fold)
