"""The plain executor: what is the right answer, computed in the most obvious way?

Whole pictures, one chunk at a time, every activation in full, no tiles, no merging of statistics: a
direct reading of the architecture with an explicit `first` flag. Slow on purpose, and sharing no
code with `vae_core`'s executor.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F


class Oracle:
    """Runs `module.encoder` or `module.decoder` over chunks of a clip, in order."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.caches: dict[int, torch.Tensor] = {}

    def causal(self, conv, x):
        """A causal convolution with its history: cached frames, or the first one replicated."""
        history = conv.conv.weight.shape[2] - 1
        if history:
            past = self.caches.get(id(conv), x[:, :, :1].expand(-1, -1, history, -1, -1))
            x = torch.cat([past, x], 2)
            self.caches[id(conv)] = x[:, :, -history:]
        return F.conv3d(x, conv.conv.weight, conv.conv.bias, padding=(0, *conv.conv.padding[1:]))

    def norm(self, norm, x, latents, first):
        if isinstance(norm, torch.nn.GroupNorm):
            return F.silu(norm(x))
        ratio = x.shape[-1] // latents.shape[-1]
        z = latents.repeat_interleave(ratio, 3).repeat_interleave(ratio, 4)
        frames = (x.shape[2] - first) // max(latents.shape[2] - first, 1)
        head, tail = (z[:, :, :1], z[:, :, 1:]) if first else (z[:, :, :0], z)
        z = torch.cat([head, tail.repeat_interleave(frames, 2)], 2)
        scale, shift = (F.conv3d(z, c.conv.weight, c.conv.bias) for c in (norm.conv_y, norm.conv_b))
        return F.silu(norm.norm_layer(x) * scale + shift)

    def resnet(self, block, x, latents, first):
        y = self.causal(block.conv1, self.norm(block.norm1, x, latents, first))
        y = self.causal(block.conv2, self.norm(block.norm2, y, latents, first))
        shortcut = getattr(block, "conv_shortcut", None)
        return y + (x if shortcut is None else F.conv3d(x, shortcut.weight, shortcut.bias))

    def down(self, module, x, first):
        if module.compress_time:
            head, tail = (x[:, :, :1], x[:, :, 1:]) if first else (x[:, :, :0], x)
            x = torch.cat([head, (tail[:, :, 0::2] + tail[:, :, 1::2]) / 2], 2)
        return self.frames(module.conv, F.pad(x, (0, 1, 0, 1)))

    def up(self, module, x, first):
        if module.compress_time:
            x = x.repeat_interleave(2, 2)[:, :, int(first) :]
        return self.frames(module.conv, x.repeat_interleave(2, 3).repeat_interleave(2, 4))

    @staticmethod
    def frames(conv, x):
        """A 2-D convolution of every frame."""
        b, _, t = x.shape[:3]
        y = conv(x.transpose(1, 2).flatten(0, 1))
        return y.unflatten(0, (b, t)).transpose(1, 2)

    def block(self, block, x, latents, first):
        for resnet in block.resnets:
            x = self.resnet(resnet, x, latents, first)
        for module in getattr(block, "downsamplers", None) or ():
            x = self.down(module, x, first)
        for module in getattr(block, "upsamplers", None) or ():
            x = self.up(module, x, first)
        return x

    def encode(self, x: torch.Tensor, first: bool) -> torch.Tensor:
        """Moments of one chunk of sample frames."""
        net = self.module.encoder
        x = self.causal(net.conv_in, x)
        for block in (*net.down_blocks, net.mid_block):
            x = self.block(block, x, None, first)
        return self.causal(net.conv_out, self.norm(net.norm_out, x, None, first))

    def decode(self, latents: torch.Tensor, first: bool) -> torch.Tensor:
        """Sample frames of one chunk of latents."""
        net = self.module.decoder
        x = self.causal(net.conv_in, latents)
        for block in (net.mid_block, *net.up_blocks):
            x = self.block(block, x, latents, first)
        return self.causal(net.conv_out, self.norm(net.norm_out, x, latents, first))


def chunked(size: int, first: int, rest: int) -> list[slice]:
    """[0, size) as one slice of `first`, then slices of `rest`, the last one shorter where it must
    be.
    """
    bounds = [0, *range(first, size, rest), size] if size > first else [0, size]
    return [slice(a, b) for a, b in pairwise(bounds)]


@torch.no_grad()
def encode_aligned(module, video, chunk_frames):
    """Moments of a whole clip in aligned chunks."""
    oracle = Oracle(module)
    parts = chunked(video.shape[2], 1 + chunk_frames, chunk_frames)
    return torch.cat([oracle.encode(video[:, :, part], part.start == 0) for part in parts], 2)


@torch.no_grad()
def decode_aligned(module, latents, chunk_frames):
    """A whole clip of latents decoded in aligned chunks."""
    oracle, n = Oracle(module), chunk_frames // 4
    parts = chunked(latents.shape[2], 1 + n, n)
    return torch.cat([oracle.decode(latents[:, :, part], part.start == 0) for part in parts], 2)
