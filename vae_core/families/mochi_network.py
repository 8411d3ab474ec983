"""What are the parts of a Mochi VAE, by the names that its authors' files have for them?

The layers with their shapes and nothing else: the engine reads their weights (`mochi`), and nobody
calls them. ComfyUI has the authors' class for the same network. diffusers has one whose decoder
makes other first frames, so that a file is not loaded into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

GROUPS = 32
"""Of every norm; weights do not show the number."""


class Conv(nn.Conv3d):
    """A convolution that sees a clip's first frame again before it, and the outermost elements
    again around the picture.
    """


def _conv(channels: int, made: int) -> Conv:
    """Of 3x3x3 voxels, which keeps the size."""
    return Conv(channels, made, 3, padding=(0, 1, 1), padding_mode="replicate")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)


class Attention(nn.Module):
    """Queries, keys and values of each place, in one layer or in three, and one after them."""

    def __init__(self, channels: int, *, fused: bool) -> None:
        super().__init__()
        if fused:
            self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        else:
            self.to_q = nn.Linear(channels, channels, bias=False)
            self.to_k = nn.Linear(channels, channels, bias=False)
            self.to_v = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)


class AttentionBlock(nn.Module):
    """Attention after a norm."""

    def __init__(self, channels: int, *, fused: bool) -> None:
        super().__init__()
        self.norm, self.attn = _norm(channels), Attention(channels, fused=fused)


class Resnet(nn.Module):
    """Two convolutions, each after a norm, and attention where there is one."""

    def __init__(self, channels: int, attention: AttentionBlock | None = None) -> None:
        super().__init__()
        first, second = _conv(channels, channels), _conv(channels, channels)
        self.stack = nn.Sequential(
            *(_norm(channels), nn.SiLU(), first), *(_norm(channels), nn.SiLU(), second)
        )
        self.attn_block = attention or nn.Identity()


class Down(nn.Module):
    """To cells of several frames and squares, then resnets."""

    def __init__(self, conv: Conv, resnets: Sequence[Resnet]) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv, *resnets)


class Up(nn.Module):
    """Resnets, then frames and squares of each place."""

    def __init__(self, channels: int, made: int, resnets: int, cell: tuple[int, int]) -> None:
        super().__init__()
        self.temporal_expansion, self.spatial_expansion = cell
        self.blocks = nn.Sequential(*(Resnet(channels) for _ in range(resnets)))
        self.proj = nn.Linear(channels, made * cell[0] * cell[1] ** 2)


class Encoder(nn.Module):
    """Sample frames to moments; config: see `MochiVAE`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = config["encoder_block_out_channels"]
        first, *later = config["layers_per_block"]
        attends, fused = config["add_attention_block"], config["fused"]

        def resnets(count: int, channels: int, at: int) -> list[Resnet]:
            made = (AttentionBlock(channels, fused=fused) for _ in range(count))
            return [Resnet(channels, one if attends[at] else None) for one in made]

        layers: list[nn.Module] = [nn.Linear(config["in_channels"], widths[0])]
        layers += resnets(first, widths[0], 0)
        cells = zip(config["temporal_expansions"], config["spatial_expansions"], strict=True)
        for at, (pair, (frames, side)) in enumerate(zip(pairwise(widths), cells, strict=True)):
            cell = (frames, side, side)
            conv = Conv(*pair, cell, stride=cell, padding_mode="replicate")
            layers.append(Down(conv, resnets(later[at], pair[1], at + 1)))
        layers += resnets(later[-1], widths[-1], -1)
        self.layers, self.output_norm = nn.Sequential(*layers), _norm(widths[-1])
        self.output_proj = nn.Linear(widths[-1], 2 * config["latent_channels"], bias=False)


class Decoder(nn.Module):
    """Latents to sample frames; config: see `MochiVAE`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = config["decoder_block_out_channels"][::-1]
        first, *later = config["layers_per_block"][::-1]
        conv = nn.Conv3d(config["latent_channels"], widths[0], 1)
        blocks: list[nn.Module] = [
            nn.Sequential(conv, *(Resnet(widths[0]) for _ in range(first))),
        ]
        cells = zip(
            config["temporal_expansions"][::-1], config["spatial_expansions"][::-1], strict=True
        )
        levels = zip(pairwise(widths), later[:-1], cells, strict=True)
        blocks += [Up(*pair, resnets, cell) for pair, resnets, cell in levels]
        blocks.append(nn.Sequential(*(Resnet(widths[-1]) for _ in range(later[-1]))))
        self.blocks = nn.ModuleList(blocks)
        self.output_proj = nn.Linear(widths[-1], config["out_channels"])


class MochiVAE(nn.Module):
    """The whole network; by default as it was published.

    numbers: those of `NUMBERS` that are others, by the names of diffusers' config.json.
        encoder_block_out_channels, decoder_block_out_channels: of each level, from the widest
        picture on, multiples of `GROUPS`. layers_per_block: resnets of the encoder's first block,
        its levels and its last block; a decoder has them backwards. temporal_expansions,
        spatial_expansions: frames, and elements along a side, that a level of the encoder makes one
        of. add_attention_block: for each of the encoder's blocks. in_channels: with waves. fused:
        whether queries, keys and values are one layer.
    """

    def __init__(self, **numbers: Any) -> None:
        super().__init__()
        config = {**NUMBERS, **numbers}
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MochiVAE:
        """The network whose numbers a mapping has, whatever else is in it."""
        return cls(**{name: config[name] for name in NUMBERS if name in config})


AutoencoderKLMochi = MochiVAE
"""As diffusers' config.json calls it."""

NUMBERS: Mapping[str, Any] = {
    "in_channels": 15,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 128, 256, 384),
    "decoder_block_out_channels": (128, 256, 512, 768),
    "latent_channels": 12,
    "layers_per_block": (3, 3, 4, 6, 3),
    "temporal_expansions": (1, 2, 3),
    "spatial_expansions": (2, 2, 2),
    "add_attention_block": (False, True, True, True, True),
    "fused": True,
}
"""What `MochiVAE` is told, and what it is told for the published network."""

PARTS = (Conv, Attention, AttentionBlock, Resnet, Down, Up, Encoder, Decoder)
"""The classes of its parts."""
