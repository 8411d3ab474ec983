"""The module tree of Wan 2.1 by the authors' names, as ComfyUI's class has it, without ComfyUI.

Same children, same order, same kinds of leaves and the same weights; nothing here runs, because
what the network says is `oracle_wan`'s to answer.
"""

from __future__ import annotations

import torch
from oracle_wan import weights_of
from torch import nn

MULTIPLES = (1, 2, 4, 4)
BLOCKS = 2
# Whether the encoder's reductions, from the finest on, are in time too.
IN_TIME = (False, True, True)


class CausalConv3d(nn.Conv3d):
    """A convolution whose padding in time lies before the clip alone."""

    def __init__(self, into: int, out: int, size: int, padding: int = 0) -> None:
        super().__init__(into, out, size, padding=padding)
        self._padding = 2 * padding
        self.padding = (0, padding, padding)


class RMS_norm(nn.Module):
    """A norm over the channels of a voxel, of videos or of pictures."""

    def __init__(self, channels: int, dimensions: int = 3) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * dimensions))
        self.bias = None


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(RMS_norm(into), nn.SiLU(), CausalConv3d(into, out, 3, 1)),
            *(RMS_norm(out), nn.SiLU(), nn.Dropout(0.0), CausalConv3d(out, out, 3, 1)),
        )
        self.shortcut = nn.Identity() if into == out else CausalConv3d(into, out, 1)


class AttentionBlock(nn.Module):
    """One head over the places of a frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMS_norm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)


class Resample(nn.Module):
    """A change of the sides, and of the number of frames where `mode` ends with 3d."""

    def __init__(self, channels: int, mode: str) -> None:
        super().__init__()
        self.mode = mode
        shrinks = mode.startswith("down")
        if shrinks:
            layers = (nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        else:
            wide = nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
            layers = (wide, nn.Conv2d(channels, channels // 2, 3, padding=1))
        self.resample = nn.Sequential(*layers)
        if mode.endswith("3d"):
            self.time_conv = CausalConv3d(channels, channels if shrinks else 2 * channels, 1)
            weight = self.time_conv.weight
            self.time_conv.weight = nn.Parameter(weight.repeat(1, 1, 3, 1, 1))
            self.time_conv.kernel_size = (3, 1, 1)
            self.time_conv.stride = (2, 1, 1) if shrinks else (1, 1, 1)
            self.time_conv._padding = 0 if shrinks else 2


def end(into: CausalConv3d, levels: list[nn.Module], name: str, out: CausalConv3d) -> nn.Module:
    """An encoder or a decoder; its levels go by `name`."""
    module = nn.Module()
    module.conv1 = into
    middle = into.out_channels if name == "upsamples" else out.in_channels
    module.add_module(name, nn.Sequential(*levels))
    blocks = (ResidualBlock(middle, middle), AttentionBlock(middle), ResidualBlock(middle, middle))
    module.middle = nn.Sequential(*blocks)
    module.head = nn.Sequential(RMS_norm(out.in_channels), nn.SiLU(), out)
    return module


def encoder(width: int, latents: int, channels: int) -> nn.Module:
    """The encoder."""
    layers: list[nn.Module] = []
    into = width
    for number, multiple in enumerate(MULTIPLES):
        for _ in range(BLOCKS):
            layers.append(ResidualBlock(into, width * multiple))
            into = width * multiple
        if number < len(IN_TIME):
            layers.append(Resample(into, "downsample3d" if IN_TIME[number] else "downsample2d"))
    first, last = CausalConv3d(channels, width, 3, 1), CausalConv3d(into, 2 * latents, 3, 1)
    return end(first, layers, "downsamples", last)


def decoder(width: int, latents: int, channels: int) -> nn.Module:
    """The decoder."""
    layers: list[nn.Module] = []
    deepest = into = width * MULTIPLES[-1]
    for number, multiple in enumerate(reversed(MULTIPLES)):
        for _ in range(BLOCKS + 1):
            layers.append(ResidualBlock(into, width * multiple))
            into = width * multiple
        if number < len(IN_TIME):
            layers.append(Resample(into, "upsample3d" if IN_TIME[-1 - number] else "upsample2d"))
            into //= 2
    first, last = CausalConv3d(latents, deepest, 3, 1), CausalConv3d(into, channels, 3, 1)
    return end(first, layers, "upsamples", last)


class WanVAE(nn.Module):
    """The whole tree with the weights of a module of either dialect."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        weights = weights_of(module)
        width = len(weights["decoder.head.0.gamma"])
        latents = len(weights["conv2.weight"])
        channels = weights["encoder.conv1.weight"].shape[1]
        self.encoder = encoder(width, latents, channels)
        self.conv1 = CausalConv3d(2 * latents, 2 * latents, 1)
        self.conv2 = CausalConv3d(latents, latents, 1)
        self.decoder = decoder(width, latents, len(weights["decoder.head.2.weight"]))
        self.to(weights["conv1.weight"].dtype)
        self.load_state_dict(weights)
        self.eval().requires_grad_(False)
