"""Which program does a live VAE of LTX-Video or LTX-2 stand for?

`lower_encoder` and `lower_decoder` walk the parts in the order in which they are run, and put one
step for each convolution: norms of single voxels without parameters, a clip's first frame again
before it, squares of 4x4 elements at the ends. Decoders may look ahead: each of their convolutions
in time then sees a frame more, and after a clip its last frame again.

What changes sizes moves values between places and channels. Going down, a convolution makes few
channels and its values are gathered, beside the means of those that it saw; going up, it makes all
values of a block of places at once, and what it saw is spread beside them. These second ways are
steps of their own, see `Fold`.

The authors' class has latents normalised by channel, inside; diffusers' have them as the network
makes them. Nothing here depends on chunks. No tensor is read but for its shape.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from ..errors import LoweringError
from ..program.parts import STEADY, Conv, Edge, Form, Norm, Rate, Timestep
from ..program.steps import Program, Residual, Step, StoreSpec
from .attributes import check, check_doors, plain
from .building import Builder, child, only
from .ltx_parts import (
    DOORS,
    KNOWN,
    STATISTICS,
    TIME_EMBEDDER,
    check_decoder,
    convolution,
    factors_of,
    gathering,
    is_causal,
    is_ltx,
    rate_of,
    refuse_noise,
    spreading,
    stages,
)
from .wan_parts import into_squares, of_squares

_TABLE = "scale_shift_table"
_TIMESTEP = 0.05
"""How much noise a decoder is told of where its module does not say: what its authors tell it."""
_RESNET = {"norm1", "conv1", "norm2", "conv2", "norm3", "conv_shortcut", "non_linearity"}


def owns(module: nn.Module) -> bool:
    """Whether a module is LTX's by its parts, whichever class holds it."""
    return is_ltx(module)


@dataclass(slots=True)
class _Builder(Builder):
    """The parts of one coder. causal: whether its convolutions see no later frames. told: how much
    noise it is told that latents have.
    """

    causal: bool = True
    told: float = 0.0

    def put(
        self,
        mix: Conv,
        norm: Norm | None = None,
        rate: Rate = STEADY,
        residual: Residual | None = None,
    ) -> None:
        """One step from the newest result to a store of its own."""
        px, frames = self.spec.px * mix.stride // mix.makes_px, self.spec.frames
        dst = self.store(mix.out_channels, px, frames * rate.down // rate.up)
        self.steps.append(Step(self.at, dst, mix, norm, residual=residual, rate=rate))
        self.at = dst

    def norm(
        self, owner: nn.Module, path: str, name: str, timestep: Timestep | None = None
    ) -> Norm:
        """The norm called `name`, followed by SiLU."""
        eps = float(cast("Any", child(owner, path, name)).eps)
        channels = self.spec.channels
        return Norm(f"{path}.{name}", channels, 1, eps, form=Form.RMS, timestep=timestep)

    def conv(self, owner: nn.Module, path: str, name: str) -> Conv:
        """The convolution called `name`, which keeps sizes."""
        found = convolution(child(owner, path, name), f"{path}.{name}", self.causal)
        if found.stride != 1:
            raise LoweringError(f"{path}.{name} must keep the size of what it reads; {found}.")
        return found

    def part(self, part: nn.Module, path: str, embedder: str | None) -> None:
        """A block of two convolutions, or what changes sizes."""
        if hasattr(part, "conv1"):
            self.resnet(part, path, embedder)
        elif hasattr(part, "group_size"):
            self.downsample(part, path)
        elif hasattr(part, "residual"):
            self.upsample(part, path)
        else:
            rate = rate_of(part, path)
            if not self.causal:
                raise LoweringError(f"{path} passes over frames and looks ahead.")
            self.put(convolution(part, path, self.causal), rate=rate)

    def resnet(self, block: nn.Module, path: str, embedder: str | None) -> None:
        """Two convolutions, the second added to what the block began with."""
        refuse_noise(block, path)
        only(block, path, _RESNET)
        first, second = self._timesteps(block, path, embedder)
        entry = self.at
        self.put(self.conv(block, path, "conv1"), self.norm(block, path, "norm1", first))
        conv, norm = self.conv(block, path, "conv2"), self.norm(block, path, "norm2", second)
        made, self.at = self.at, entry
        self._shortcut(block, path)
        added, self.at = self.at, made
        dst = (
            added if self.causal else self.store(conv.out_channels, self.spec.px, self.spec.frames)
        )
        self.steps.append(Step(self.at, dst, conv, norm, residual=Residual(added)))
        self.at = dst

    def _timesteps(
        self, block: nn.Module, path: str, embedder: str | None
    ) -> tuple[Timestep | None, Timestep | None]:
        """What scales and shifts after each of a block's norms; None where nothing does."""
        if embedder is None:
            if isinstance(getattr(block, _TABLE, None), nn.Parameter):
                raise LoweringError(f"{path} is told of noise by nothing that the engine knows.")
            return None, None
        first = Timestep(self.told, "decoder", embedder, path, _TABLE, (0, 1))
        return first, replace(first, rows=(2, 3))

    def _shortcut(self, block: nn.Module, path: str) -> None:
        """What is added at a block's end: what it began with, normalised and through a convolution
        of its own where channels change.
        """
        module = getattr(block, "conv_shortcut", None)
        if module is None or isinstance(module, nn.Identity):
            return
        owner = child(block, path, "norm3")
        where = f"{path}.norm3" if isinstance(owner, nn.LayerNorm) else f"{path}.norm3.norm"
        layer = owner if isinstance(owner, nn.LayerNorm) else child(owner, f"{path}.norm3", "norm")
        eps = float(cast("Any", layer).eps)
        norm = Norm(where, self.spec.channels, 1, eps, form=Form.LAYER, activated=False)
        self.put(self.conv(block, path, "conv_shortcut"), norm)

    def downsample(self, module: nn.Module, path: str) -> None:
        """A convolution whose values are gathered, added to means of what it saw."""
        factors = frames, side = factors_of(module, path)
        if frames > 1 and not self.causal:
            raise LoweringError(f"{path} shows its first frame twice and looks ahead.")
        entry, rate = self.at, Rate(down=frames)
        conv = self.conv(module, path, "conv")
        made = conv.out_channels * frames * side**2
        self.put(gathering(path, self.spec.channels, made, factors), rate=rate)
        means, self.at = self.at, entry
        self.put(conv)
        mix = gathering(path, conv.out_channels, made, factors)
        self.steps.append(Step(self.at, means, mix, residual=Residual(means), rate=rate))
        self.at = means

    def upsample(self, module: nn.Module, path: str) -> None:
        """A convolution that makes blocks of places, to which what it saw is added, spread out."""
        sampler = cast("Any", module)
        factors = frames, side = factors_of(module, path)
        conv, entry, channels = self.conv(module, path, "conv"), self.at, self.spec.channels
        made, rest = divmod(conv.out_channels, frames * side**2)
        if rest:
            raise LoweringError(f"{path} makes {conv.out_channels} channels for {factors} places.")
        self.put(
            replace(conv, out_channels=made, makes_px=side, in_blocks=True), rate=Rate(up=frames)
        )
        if sampler.residual:
            main, self.at = self.at, entry
            spread = spreading(path, channels, made, factors)
            self.put(spread, rate=Rate(up=frames), residual=Residual(main))


def _coder(module: nn.Module, name: str) -> nn.Module:
    """`module.encoder` or `module.decoder`, of a VAE whose methods are its class's own."""
    check_decoder(module)
    check_doors(module, DOORS)
    coder = child(module, "vae", name)
    check(coder, name, KNOWN)
    return plain(coder)


def _patch(coder: nn.Module, path: str) -> int:
    """Elements along a side of the squares that lie side by side in the channels."""
    if getattr(coder, "patch_size_t", 1) != 1:
        raise LoweringError(f"{path} puts frames side by side in the channels.")
    return int(cast("Any", coder).patch_size)


def _latents(module: nn.Module) -> int:
    """Channels of the latents."""
    conv_in = child(child(module, "vae", "decoder"), "decoder", "conv_in")
    return int(cast("Any", child(conv_in, "decoder.conv_in", "conv")).weight.shape[1])


def _norm_out(coder: nn.Module) -> str:
    return "norm_out" if hasattr(coder, "norm_out") else "conv_norm_out"


def _ends(build: _Builder, coder: nn.Module, path: str) -> Conv:
    """The last convolution, as its module has it."""
    known = {"conv_in", "mid_block", "down_blocks", "up_blocks", _norm_out(coder), "conv_out"}
    only(coder, path, known | {TIME_EMBEDDER, f"last_{TIME_EMBEDDER}"})
    return build.conv(coder, path, "conv_out")


def lower_encoder(module: nn.Module) -> Program:
    """The program of `module.encoder`: sample frames [b, 3, t, h, w] to moments [b, 2z, n, h/32,
    w/32].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder, path = _coder(module, "encoder"), "encoder"
    build = _Builder([StoreSpec(3, 1, 1)], causal=is_causal(coder))
    first = build.conv(coder, path, "conv_in")
    if first.edge is not Edge.ZEROS:
        raise LoweringError(f"{path}.conv_in mirrors squares of elements at the picture's edge.")
    first = of_squares(first, _patch(coder, path))
    build = replace(build, stores=[StoreSpec(first.in_channels, 1, 1)])
    build.put(first)
    for part in stages(coder, path):
        build.part(*part)
    conv, channels = _ends(build, coder, path), _latents(module)
    if conv.out_channels not in (channels + 1, 2 * channels):
        raise LoweringError(
            f"{path}.conv_out must make {channels} means and one variance, or as many; it makes"
            f" {conv.out_channels} channels."
        )
    normalises = isinstance(getattr(module, STATISTICS, None), nn.Module)
    shown = replace(
        conv,
        out_channels=2 * channels,
        repeats=0 if normalises else 2 * channels - conv.out_channels,
        statistics=STATISTICS if normalises else None,
    )
    build.put(shown, build.norm(coder, path, _norm_out(coder)))
    return build.program(path)


def lower_decoder(module: nn.Module) -> Program:
    """The program of `module.decoder`: latents [b, z, n, h/32, w/32] to sample frames [b, 3, t, h,
    w].

    Raises `LoweringError` with the path of whatever the engine cannot run exactly.
    """
    coder, path = _coder(module, "decoder"), "decoder"
    patch, parts = _patch(coder, path), list(stages(coder, path))
    factors = [factors_of(part, where) for part, where, _ in parts if hasattr(part, "residual")]
    frames, side = 1, patch
    for by_frames, by_side in factors:
        frames, side = frames * by_frames, side * by_side
    build = _Builder(
        [StoreSpec(_latents(module), side, frames)],
        causal=is_causal(coder),
        told=float(getattr(module, "decode_timestep", _TIMESTEP)),
    )
    norm = None
    if isinstance(getattr(module, STATISTICS, None), nn.Module):
        channels = build.spec.channels
        norm = Norm(STATISTICS, channels, 1, 0.0, form=Form.NONE, activated=False)
    build.put(build.conv(coder, path, "conv_in"), norm)
    for part in parts:
        build.part(*part)
    conv = into_squares(_ends(build, coder, path), patch)
    last = _last_timestep(coder, path, build.told)
    build.put(conv, build.norm(coder, path, _norm_out(coder), last))
    return build.program(path)


def _last_timestep(decoder: nn.Module, path: str, told: float) -> Timestep | None:
    """What scales and shifts after the last norm; None where nothing does."""
    for prefix in ("", "last_"):
        if isinstance(getattr(decoder, f"{prefix}{TIME_EMBEDDER}", None), nn.Module):
            embedder = f"{path}.{prefix}{TIME_EMBEDDER}"
            return Timestep(told, path, embedder, path, f"{prefix}{_TABLE}", (0, 1))
    return None
