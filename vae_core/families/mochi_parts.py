"""What are the parts of Mochi's VAEs called, and what does the engine rely on in them?

A `Dialect` has what differs between the classes that hold such a network: names, and in which lists
parts stand. `KNOWN` and `DOORS` have the classes themselves, `check_switches` what can be changed
in diffusers' own. The functions read single parts, and refuse what they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..geometry.region import Halo
from ..program.parts import Conv, Edge
from .attributes import HOST_OPERATIONS, TORCH, Known, full_name
from .building import child, children, pair
from .by_frame import POINT
from .mochi_network import PARTS

_MOCHI = "diffusers.models.autoencoders.autoencoder_kl_mochi."
_COG = "diffusers.models.autoencoders.autoencoder_kl_cogvideox."
_HOST = "comfy.ldm.genmo.vae.model."
HEAD = 32
"""Channels of an attention's head."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one class calls the parts of the network; several names stand for a path.

    resnet: norm, convolution, norm, convolution. queries: the layers of queries, keys and values,
        the first of these that are there. out: the one after them, in an attention.
    norm_out, last: the last norm of an encoder, and the last layer of either.
    least: the least length that queries and keys are divided by.
    """

    resnet: tuple[str, str, str, str]
    queries: tuple[tuple[str, ...], ...]
    out: str
    norm_out: str
    last: str
    least: float


_APART = ("to_q", "to_k", "to_v")
DIFFUSERS = Dialect(
    resnet=("norm1.norm_layer", "conv1.conv", "norm2.norm_layer", "conv2.conv"),
    queries=(_APART,),
    out="to_out.0",
    norm_out="norm_out.norm_layer",
    last="proj_out",
    least=1e-5,
)
AUTHORS = Dialect(
    resnet=("stack.0", "stack.2", "stack.3", "stack.5"),
    queries=(("qkv",), _APART),
    out="out",
    norm_out="output_norm",
    last="output_proj",
    least=1e-12,
)


def _replicates(module: nn.Module) -> str | None:
    """diffusers' convolution, which pads by itself."""
    mode = cast("Any", module).pad_mode
    return None if mode == "replicate" else f"pads by {mode}; this network replicates."


def _replicates_too(module: nn.Module) -> str | None:
    """The authors', which lets torch pad height and width."""
    mode = cast("Any", module).padding_mode
    return None if mode == "replicate" else f"pads by {mode}; this network replicates."


def _has_waves(module: nn.Module) -> str | None:
    part = cast("Any", module)
    found = part.start, part.stop, part.step
    return None if found == (6, 8, 1) else f"must make waves of 2^6 and 2^7 a unit; it has {found}."


def _attends(module: nn.Module) -> str | None:
    """diffusers' attention, which anybody may give another processor."""
    part = cast("Any", module)
    kind = type(part.processor).__name__
    if kind != "MochiVaeAttnProcessor2_0":
        return f"attends by a {kind}, which the engine does not know."
    if part.norm_q is None or part.norm_k is None or part.inner_dim != HEAD * part.heads:
        return f"must attend with heads of {HEAD} channels, divided by their length."
    return None


_UNPATCHED = HOST_OPERATIONS["comfy.ops.disable_weight_init.GroupNorm"].values
_THEIRS = (
    *("ChunkedGroupNorm3D", "ResnetBlock3D", "DownBlock3D", "MidBlock3D", "UpBlock3D"),
    *("Encoder3D", "Decoder3D"),
)
_AUTHORS = (
    *("DepthToSpaceTime", "ResBlock", "AttentionBlock", "CausalUpsampleBlock", "DownsampleBlock"),
    "Encoder",
)
KNOWN = {
    **TORCH,
    **HOST_OPERATIONS,
    "torch.nn.modules.container.Sequential": Known(),
    **{full_name(part): Known() for part in PARTS[1:]},
    **{f"vae_core.families.mochi_network.{part.__name__}": Known() for part in PARTS[1:]},
    full_name(PARTS[0]): Known(rule=_replicates_too),
    "vae_core.families.mochi_network.Conv": Known(rule=_replicates_too),
    f"{_COG}CogVideoXCausalConv3d": Known(rule=_replicates),
    f"{_COG}CogVideoXSafeConv3d": TORCH["torch.nn.modules.conv.Conv3d"],
    "diffusers.models.normalization.LpNorm": Known({"p": (2,), "dim": (-1,), "eps": (1e-5,)}),
    "diffusers.models.attention_processor.Attention": Known(
        {
            "residual_connection": (False,),
            "rescale_output_factor": (1.0,),
            "is_causal": (True,),
            "group_norm": (None,),
            "spatial_norm": (None,),
        },
        _attends,
    ),
    f"{_MOCHI}FourierFeatures": Known(rule=_has_waves),
    **{f"{_MOCHI}Mochi{name}": Known() for name in _THEIRS},
    f"{_HOST}PConv3d": Known({**_UNPATCHED, "causal": (True,)}, _replicates_too),
    f"{_HOST}GroupNormSpatial": Known(_UNPATCHED),
    f"{_HOST}Conv1x1": Known(_UNPATCHED),
    f"{_HOST}FourierFeatures": Known(rule=_has_waves),
    f"{_HOST}Attention": Known({"head_dim": (HEAD,), "qk_norm": (True,)}),
    f"{_HOST}Decoder": Known({"output_nonlinearity": ("silu",)}),
    **{f"{_HOST}{name}": Known() for name in _AUTHORS},
}
"""The classes of parts that the engine runs, and what it relies on in them."""

_CODERS = ("encode", "decode", "_encode", "_decode", "tiled_encode", "tiled_decode")
DOORS = {f"{_MOCHI}AutoencoderKLMochi": _CODERS, f"{_HOST}VideoVAE": ("encode", "decode")}
"""The methods of a whole VAE by which its parts are run, for each class."""

_SWITCHES = {
    "use_framewise_encoding": False,
    "use_framewise_decoding": False,
    "drop_last_temporal_frames": True,
}


def check_switches(module: nn.Module) -> None:
    """`LoweringError` where diffusers' class was told to run its parts in another way."""
    for name, usual in _SWITCHES.items():
        if getattr(module, name, usual) is not usual:
            raise LoweringError(
                f"this VAE has {name} = {not usual}, which gives another result than the untiled"
                f" network; the engine needs no such switch. Set it to {usual}."
            )


@dataclass(frozen=True, slots=True)
class Named:
    """A part and its path."""

    part: nn.Module
    path: str

    def child(self, name: str) -> Named:
        """The part called `name`, which may be a path of several names."""
        part, path = self.part, self.path
        for each in name.split("."):
            part, path = child(part, path, each), f"{path}.{each}"
        return Named(part, path)

    def list(self, name: str) -> tuple[Named, ...]:
        """Those in the list called `name`."""
        listed = enumerate(children(self.part, name))
        return tuple(Named(part, f"{self.path}.{name}.{i}") for i, part in listed)

    def members(self) -> tuple[Named, ...]:
        """Those in it, where it is a list itself."""
        return tuple(self.child(name) for name, _ in self.part.named_children())


def dialect_of(module: nn.Module) -> Dialect:
    """Of a whole VAE."""
    return AUTHORS if hasattr(getattr(module, "decoder", None), "output_proj") else DIFFUSERS


def replicated(conv: Named) -> Conv:
    """A causal convolution that sees what lies outermost beyond the picture.

    diffusers' pads by itself and its inner one does not; the authors' lets torch pad height and
    width.
    """
    module, path = conv.part, conv.path
    if not isinstance(module, nn.Conv3d):
        raise LoweringError(f"{path} must be a convolution; it is {type(module).__name__}.")
    out_channels, in_channels, taps, *sides = module.weight.shape
    stride = tuple(module.stride)
    half = (sides[0] - 1) // 2
    padded = pair(module.padding, path) in ((0, 0), (half, half)) and module.padding[0] == 0
    steady = stride == (1, 1, 1)
    fits = sides[0] == sides[1] and (steady or stride == (taps, *sides))
    if not (padded and fits) or module.groups != 1 or set(module.dilation) != {1}:
        raise LoweringError(f"{path} is a convolution that the engine does not run: {module}.")
    edge = Halo(half, half) if steady else POINT
    geometry = in_channels, out_channels, taps, sides[0], stride[1], edge
    return Conv(path, *geometry, edge=Edge.REPLICATE)
