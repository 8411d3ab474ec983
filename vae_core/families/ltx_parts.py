"""What are the parts of LTX's VAEs, and what does the engine rely on in them?

Three classes hold such a network: diffusers' two, and the authors', which ComfyUI has. `stages`
hides how differently they nest the same parts. `KNOWN` and `DOORS` have the classes
themselves. `convolution` reads the geometry of one convolution, and refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Edge, Fold, Rate
from .attributes import HOST_OPERATIONS, TORCH, Known, plain
from .building import child, children, only

_AUTOENCODERS = "diffusers.models.autoencoders."
_FIRST = f"{_AUTOENCODERS}autoencoder_kl_ltx.LTXVideo"
_SECOND = f"{_AUTOENCODERS}autoencoder_kl_ltx2.LTX2Video"
_HOST = "comfy.ldm.lightricks.vae."
_HOST_VIDEO = f"{_HOST}causal_video_autoencoder."
_EDGES = {"zeros": Edge.ZEROS, "reflect": Edge.REFLECT}

_COMMON = (
    *("CausalConv3d", "ResnetBlock3d", "Downsampler3d", "Upsampler3d", "DownBlock3D"),
    *("MidBlock3d", "UpBlock3d", "Encoder3d", "Decoder3d"),
)
_HOST_NAMES = (
    *("Encoder", "Decoder", "UNetMidBlock3D", "ResnetBlock3D", "LayerNorm"),
    *("SpaceToDepthDownsample", "DepthToSpaceUpsample"),
)


def _pads_known(module: nn.Module) -> str | None:
    mode = cast("Any", module).padding_mode
    return None if mode in _EDGES else f"pads by {mode}; the engine pads by {' or '.join(_EDGES)}."


def _has_no_weight(module: nn.Module) -> str | None:
    weights = [name for name, _ in module.named_parameters()]
    return f"must have no parameters; it has {', '.join(weights)}." if weights else None


def _over_channels(module: nn.Module) -> str | None:
    norm = cast("Any", module)
    axis = getattr(norm, "dim", None) or getattr(norm, "channel_dim", None)
    return None if axis == 1 else f"must normalise over the channels; it does so over axis {axis}."


_EMBEDDINGS = ("diffusers.models.embeddings", "comfy.ldm.lightricks.model")
_EMBEDDERS = {
    "PixArtAlphaCombinedTimestepSizeEmbeddings": Known({"use_additional_conditions": (False,)}),
    "TimestepEmbedding": Known({"cond_proj": (None,), "post_act": (None,)}),
    "Timesteps": Known({"flip_sin_to_cos": (True,), "downscale_freq_shift": (0,), "scale": (1,)}),
}
_UNPATCHED = HOST_OPERATIONS["comfy.ops.disable_weight_init.Conv3d"].values

KNOWN = {
    **TORCH,
    "torch.nn.modules.conv.Conv3d": Known(rule=_pads_known),
    "torch.nn.modules.normalization.LayerNorm": Known(),
    "torch.nn.modules.linear.Linear": Known(),
    **{f"{place}.{name}": known for place in _EMBEDDINGS for name, known in _EMBEDDERS.items()},
    "diffusers.models.normalization.RMSNorm": Known(rule=_has_no_weight),
    f"{_AUTOENCODERS}autoencoder_kl_ltx2.PerChannelRMSNorm": Known(rule=_over_channels),
    **{f"{prefix}{name}": Known() for prefix in (_FIRST, _SECOND) for name in _COMMON},
    f"{_FIRST}095DownBlock3D": Known(),
    "comfy.ops.disable_weight_init.Conv3d": Known(_UNPATCHED, _pads_known),
    "comfy.ops.disable_weight_init.LayerNorm": Known(_UNPATCHED),
    "comfy.ops.disable_weight_init.Linear": Known(_UNPATCHED),
    f"{_HOST}causal_conv3d.CausalConv3d": Known(),
    f"{_HOST}pixel_norm.PixelNorm": Known(rule=_over_channels),
    **{f"{_HOST_VIDEO}{name}": Known() for name in _HOST_NAMES},
}
"""The classes of parts that the engine runs, and what it relies on in them."""

_CODERS = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
DOORS = {
    f"{_AUTOENCODERS}autoencoder_kl_ltx.AutoencoderKLLTXVideo": _CODERS,
    f"{_AUTOENCODERS}autoencoder_kl_ltx2.AutoencoderKLLTX2Video": _CODERS,
    f"{_HOST_VIDEO}VideoVAE": ("encode", "decode"),
}
"""The methods of a whole VAE by which its parts are run, for each class."""

STATISTICS = "per_channel_statistics"
"""What the authors' class normalises latents by, inside."""

TIME_EMBEDDER = "time_embedder"
"""What blocks hold that are conditioned on the noise that is left in latents."""

_DIFFUSION = "conv_in_x_t"
"""A part of the decoder that newer models have, which is no decoder of convolutions."""


def decoder_of(module: nn.Module) -> nn.Module | None:
    found = getattr(module, "decoder", None)
    return found if isinstance(found, nn.Module) else None


def is_ltx(module: nn.Module) -> bool:
    """Whether a module is one of LTX's VAEs by its parts, whichever class holds it."""
    decoder = decoder_of(module)
    if decoder is None or not hasattr(decoder, "up_blocks"):
        return decoder is not None and hasattr(decoder, _DIFFUSION)
    middle = getattr(decoder, "mid_block", None) or next(iter(children(decoder, "up_blocks")), None)
    parts = getattr(middle, "resnets", None) or getattr(middle, "res_blocks", None) or [None]
    norm = getattr(parts[0], "norm1", None)
    return isinstance(norm, nn.Module) and not list(norm.parameters()) and hasattr(norm, "eps")


def check_decoder(module: nn.Module) -> None:
    """`LoweringError` for the networks beside LTX's VAEs that are none of convolutions."""
    if hasattr(decoder_of(module), _DIFFUSION):
        raise LoweringError(
            "decoder is LTX-2.5's, which makes pictures by attention and a step of diffusion from"
            " fixed noise; the engine runs the decoders of convolutions, up to LTX-2.3. Leave this"
            " VAE to its own class."
        )


_LISTS = ("conv_in", "upsamplers", "resnets", "res_blocks", "downsamplers", "conv_out")
"""What the blocks hold, in the order in which it is run; none has all of it."""


def stages(coder: nn.Module, path: str) -> Iterator[tuple[nn.Module, str, str | None]]:
    """The parts between the first and the last convolution, in order, with their paths, and the
    path of what embeds a timestep for them.
    """
    decodes = hasattr(coder, "up_blocks")
    for name in ("mid_block", "up_blocks") if decodes else ("down_blocks", "mid_block"):
        found = getattr(coder, name, None)
        if isinstance(found, nn.ModuleList):
            for i, block in enumerate(children(coder, name)):
                yield from _block(block, f"{path}.{name}.{i}")
        elif isinstance(found, nn.Module):
            yield from _block(plain(found), f"{path}.{name}")


def _block(block: nn.Module, path: str) -> Iterator[tuple[nn.Module, str, str | None]]:
    """The parts of a block; itself where it is one."""
    if hasattr(block, "conv1") or hasattr(block, "conv"):
        yield block, path, None
        return
    only(block, path, {*_LISTS, TIME_EMBEDDER})
    told = isinstance(getattr(block, TIME_EMBEDDER, None), nn.Module)
    embedder = f"{path}.{TIME_EMBEDDER}" if told else None
    for name in _LISTS:
        found = getattr(block, name, None)
        if isinstance(found, nn.ModuleList):
            for i, part in enumerate(children(block, name)):
                yield part, f"{path}.{name}.{i}", embedder
        elif isinstance(found, nn.Module):
            yield plain(found), f"{path}.{name}", None


def is_causal(coder: nn.Module) -> bool:
    """Whether no frame of a coder's result depends on later ones."""
    for owner in (coder, getattr(coder, "conv_in", None)):
        for name in ("is_causal", "causal"):
            if isinstance(found := getattr(owner, name, None), bool):
                return found
    return True


def convolution(module: nn.Module, path: str, causal: bool) -> Conv:
    """A convolution that sees a clip's first frame again before it, and where it is not causal its
    last frame after it.
    """
    conv = module
    if not isinstance(module, nn.Conv3d):
        if getattr(module, "is_causal", causal) is not causal:
            raise LoweringError(f"{path} looks ahead, and other convolutions beside it do not.")
        conv, path = child(module, path, "conv"), f"{path}.conv"
    if not isinstance(conv, nn.Conv3d):
        raise LoweringError(f"{path} must be a 3-D convolution; it is {type(conv).__name__}.")
    rows, channels, frames, height, width = conv.weight.shape
    wanted = (0, height // 2, width // 2)
    single = conv.groups == 1 and set(conv.dilation) == {1} and conv.stride[1] == conv.stride[2]
    if not single or conv.padding != wanted or height != width or not frames % 2 * height % 2:
        raise LoweringError(f"{path} is a convolution that the engine does not run: {conv}.")
    half, edge = height // 2, _EDGES[conv.padding_mode]
    return Conv(
        path,
        channels,
        rows,
        frames,
        height,
        conv.stride[1],
        Halo(half, half),
        edge=edge if half else Edge.ZEROS,
        ahead=0 if causal else frames // 2,
    )


def rate_of(module: nn.Module, path: str) -> Rate:
    """By how much a convolution with a stride thins out the frames."""
    conv = module if isinstance(module, nn.Conv3d) else child(module, path, "conv")
    return Rate(down=int(cast("Any", conv).stride[0]))


def factors_of(sampler: nn.Module, path: str) -> tuple[int, int]:
    """By how much a sampler changes the number of frames, and the sides of pictures."""
    frames, height, width = cast("tuple[int, int, int]", sampler.stride)
    if height != width or frames not in (1, 2) or height not in (1, 2):
        raise LoweringError(f"{path} changes sizes by {sampler.stride}; the engine does by 1 or 2.")
    return frames, height


def gathering(path: str, channels: int, made: int, factors: tuple[int, int]) -> Conv:
    """What moves the values of neighbouring places into the channels, of `channels` to `made`."""
    frames, side = factors
    if channels * frames * side**2 % made:
        raise LoweringError(f"{path} makes {made} channels out of {channels} of {factors} places.")
    fold = Fold(frames, side, spreads=False)
    return Conv(path, channels, made, frames, side, side, Halo(0, 0), fold=fold)


def spreading(path: str, channels: int, made: int, factors: tuple[int, int]) -> Conv:
    """What moves channels out to neighbouring places; all of them are repeated in turn."""
    frames, side = factors
    if made * frames * side**2 % channels:
        raise LoweringError(f"{path} makes {made} channels out of {channels} at {factors} places.")
    fold = Fold(frames, side, spreads=True, in_turn=True)
    return Conv(path, channels, made, 1, 1, 1, Halo(0, 0), makes_px=side, fold=fold)


def refuse_noise(block: nn.Module, path: str) -> None:
    """`LoweringError` for blocks that add noise drawn anew in each run."""
    for name in ("per_channel_scale1", "per_channel_scale2"):
        if getattr(block, name, None) is not None:
            raise LoweringError(
                f"{path} adds noise that is drawn anew in each run, as LTX-Video 0.9.1 does; no run"
                " of it equals another one. Use 0.9.5 or newer, or leave this VAE to its own class."
            )
