"""What are the parts of a SeedVR2 VAE, where no other package is there to hold them?

The layers by the names that files have for them, with their shapes and nothing else: the engine
reads their weights (`seedvr2`), and nobody calls them. ComfyUI has a class of its own for the same
network, diffusers none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

GROUPS = 32
"""Of every norm; weights do not show the number."""

_EPS = 1e-6


def _conv(channels: int, made: int, taps: int = 3, kernel: int = 3) -> nn.Conv3d:
    """A convolution that keeps the size; what it sees of earlier frames is given to it."""
    return nn.Conv3d(channels, made, (taps, kernel, kernel), padding=(0, kernel // 2, kernel // 2))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=_EPS)


class Resnet(nn.Module):
    """Two convolutions, each after a norm, and a shortcut where channels change."""

    def __init__(self, channels: int, made: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(channels), _conv(channels, made)
        self.norm2, self.conv2 = _norm(made), _conv(made, made)
        self.conv_shortcut = _conv(channels, made, 1, 1) if channels != made else None


class Attention(nn.Module):
    """Attention with one head among the voxels of a frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = _norm(channels)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Identity()])


class Middle(nn.Module):
    """Attention between two resnets."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels)])
        self.resnets = nn.ModuleList([Resnet(channels, channels) for _ in range(2)])


class Downsample(nn.Module):
    """To half the size, and of the frames where it is timed; right and bottom are padded before."""

    def __init__(self, channels: int, *, timed: bool) -> None:
        super().__init__()
        taps, step = (3, 2) if timed else (1, 1)
        self.conv = nn.Conv3d(channels, channels, (taps, 3, 3), stride=(step, 2, 2))


class Upsample(nn.Module):
    """To twice the size, and of the frames where it is timed: all at a place from its channels."""

    def __init__(self, channels: int, *, timed: bool) -> None:
        super().__init__()
        self.upscale_conv = nn.Conv3d(channels, channels * (8 if timed else 4), 1)
        self.conv = _conv(channels, channels)


class Level(nn.Module):
    """Resnets, and what changes the size after them."""

    def __init__(self, channels: int, made: int, resnets: int) -> None:
        super().__init__()
        first = Resnet(channels, made)
        self.resnets = nn.ModuleList([first, *(Resnet(made, made) for _ in range(resnets - 1))])
        self.downsamplers: nn.ModuleList | None = None
        self.upsamplers: nn.ModuleList | None = None


class Encoder(nn.Module):
    """Sample frames to moments; widths: channels of each level."""

    def __init__(self, ends: tuple[int, int], widths: Sequence[int], resnets: int, timed: int):
        super().__init__()
        channels, made = ends
        self.conv_in = _conv(channels, widths[0])
        pairs = pairwise([widths[0], *widths])
        self.down_blocks = nn.ModuleList([Level(*pair, resnets) for pair in pairs])
        for index, level in enumerate(self.down_blocks[:-1]):
            late = index >= len(widths) - timed - 1
            level.downsamplers = nn.ModuleList([Downsample(widths[index], timed=late)])
        self.mid_block = Middle(widths[-1])
        self.conv_norm_out, self.conv_act = _norm(widths[-1]), nn.SiLU()
        self.conv_out = _conv(widths[-1], made)


class Decoder(nn.Module):
    """Latents to sample frames; widths: channels of each level, those of the encoder backwards."""

    def __init__(self, ends: tuple[int, int], widths: Sequence[int], resnets: int, timed: int):
        super().__init__()
        channels, made = ends
        self.conv_in, self.mid_block = _conv(channels, widths[0]), Middle(widths[0])
        pairs = pairwise([widths[0], *widths])
        self.up_blocks = nn.ModuleList([Level(*pair, resnets) for pair in pairs])
        for index, level in enumerate(self.up_blocks[:-1]):
            level.upsamplers = nn.ModuleList([Upsample(widths[index], timed=index < timed)])
        self.conv_norm_out, self.conv_act = _norm(widths[-1]), nn.SiLU()
        self.conv_out = _conv(widths[-1], made)


class SeedVR2VAE(nn.Module):
    """The whole network; by default as it was published.

    block_out_channels: of the encoder's levels, each a multiple of `GROUPS`. layers_per_block:
    resnets in each; a decoder's has one more. temporal_scale_num: levels that halve the frames, the
    last ones of the encoder.
    """

    def __init__(
        self,
        *,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        latent_channels: int = 16,
        channels: tuple[int, int] = (3, 3),
        temporal_scale_num: int = 2,
    ) -> None:
        super().__init__()
        pictures, timed = channels, temporal_scale_num
        self.encoder = Encoder(
            (pictures[0], 2 * latent_channels), block_out_channels, layers_per_block, timed
        )
        self.decoder = Decoder(
            (latent_channels, pictures[1]), block_out_channels[::-1], layers_per_block + 1, timed
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SeedVR2VAE:
        """The network whose numbers a mapping has, whatever else is in it."""
        return cls(**{name: config[name] for name in NUMBERS if name in config})


NUMBERS = (
    "block_out_channels",
    "layers_per_block",
    "latent_channels",
    "channels",
    "temporal_scale_num",
)
"""What `SeedVR2VAE` is told."""

PARTS = (Resnet, Attention, Middle, Downsample, Upsample, Level, Encoder, Decoder)
"""The classes of its parts."""
