"""What is the right answer of a Wan 2.1 network, computed in the most obvious way?

One causal graph over the whole clip in plain tensor operations: no caches, no chunks, no tiles and
no module's own forward, only weights under the authors' names (`weights_of` maps diffusers' names
to them).  Whatever lies before the clip is zero, and the first frame passes by every convolution
in time.  Computes in the weights' own dtype; float64 is the yardstick.  Slow on purpose, and
sharing no code with `vae_core`.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]

# Layers of the encoder and of the decoder between their ends, for two residual blocks a level.
DEPTH = 2
# diffusers' words and what the authors say instead, in the order of replacement.
RENAMES = (
    (r"^post_quant_conv\.", "conv2."),
    (r"^quant_conv\.", "conv1."),
    (r"\.(norm1|conv1|norm2|conv2)\.", lambda m: f".residual.{BRANCH[m[1]]}."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda m: f".middle.{2 * int(m[1])}."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.down_blocks\.", ".downsamples."),
    (r"\.up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f".upsamples.{up(m[1], m[2])}."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f".upsamples.{up(m[1], DEPTH + 1)}."),
)
BRANCH = {"norm1": 0, "conv1": 2, "norm2": 3, "conv2": 6}


def up(level: str, layer: str | int) -> int:
    """The number of a layer when the decoder's levels are counted through."""
    return int(level) * (DEPTH + 2) + int(layer)


def weights_of(module: torch.nn.Module) -> Weights:
    """A module's weights under the authors' names: diffusers' renamed, the authors' as they are."""
    weights = dict(module.state_dict())
    if "quant_conv.weight" not in weights:
        return weights
    return {authors_name(name): value for name, value in weights.items()}


def authors_name(name: str) -> str:
    """The authors' name of a weight of diffusers' classes."""
    for pattern, words in RENAMES:
        name = re.sub(pattern, words, name)
    return name


def conv(w: Weights, name: str, x: torch.Tensor, **how) -> torch.Tensor:
    """A convolution in as many dimensions as its weight has."""
    weight = w[f"{name}.weight"]
    return {4: F.conv2d, 5: F.conv3d}[weight.ndim](x, weight, w[f"{name}.bias"], **how)


def causal(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """A convolution over frames that sees zeros before the clip and around the picture."""
    t, h, _ = w[f"{name}.weight"].shape[2:]
    return conv(w, name, F.pad(x, (h // 2, h // 2, h // 2, h // 2, t - 1, 0)))


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Each voxel's channels scaled to the length of the root of their number, times gamma."""
    length = x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    gamma = w[f"{name}.gamma"].reshape(1, -1, *[1] * (x.ndim - 2))
    return x / length * x.shape[1] ** 0.5 * gamma


def residual(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """A residual block over [b, c, t, h, w]."""
    y = causal(w, f"{name}.residual.2", F.silu(norm(w, f"{name}.residual.0", x)))
    y = causal(w, f"{name}.residual.6", F.silu(norm(w, f"{name}.residual.3", y)))
    return y + (causal(w, f"{name}.shortcut", x) if f"{name}.shortcut.weight" in w else x)


def attention(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """One head over the places of each frame, added to its input."""
    b, c, t, height, width = x.shape
    y = norm(w, f"{name}.norm", x.transpose(1, 2).flatten(0, 1))
    query, key, value = conv(w, f"{name}.to_qkv", y).flatten(2).chunk(3, 1)  # [b t, c, h w]
    shares = torch.softmax(query.transpose(1, 2) @ key / c**0.5, -1)  # [b t, h w, h w]
    y = conv(w, f"{name}.proj", (value @ shares.transpose(1, 2)).unflatten(2, (height, width)))
    return x + y.unflatten(0, (b, t)).transpose(1, 2)


def each_frame(picture_map, x: torch.Tensor) -> torch.Tensor:
    """A map of pictures [n, c, h, w] over every frame of [b, c, t, h, w]."""
    b, _, t = x.shape[:3]
    return picture_map(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, t)).transpose(1, 2)


def shrink(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Half the sides; where there is a convolution in time, frame 0 and then every pair as one."""
    x = each_frame(lambda y: conv(w, f"{name}.resample.1", F.pad(y, (0, 1, 0, 1)), stride=2), x)
    if f"{name}.time_conv.weight" not in w or x.shape[2] == 1:
        return x
    merged = conv(w, f"{name}.time_conv", x, stride=(2, 1, 1))
    return torch.cat([x[:, :, :1], merged], 2)


def grow(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Twice the sides; where there is a convolution in time, every frame but frame 0 twice."""
    if f"{name}.time_conv.weight" in w and x.shape[2] > 1:
        # Frame 0 is no part of the history: what the convolution sees before frame 1 is zero.
        early, late = causal(w, f"{name}.time_conv", x[:, :, 1:]).chunk(2, 1)
        x = torch.cat([x[:, :, :1], torch.stack([early, late], 3).flatten(2, 3)], 2)
    wide = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
    return each_frame(lambda y: conv(w, f"{name}.resample.1", y, padding=1), wide)


def layers(w: Weights, name: str) -> list[str]:
    """The names of a sequence's layers, in order."""
    numbers = {int(key.split(".")[2]) for key in w if key.startswith(f"{name}.")}
    return [f"{name}.{number}" for number in sorted(numbers)]


def through(w: Weights, names: list[str], resample, x: torch.Tensor) -> torch.Tensor:
    """One layer after the other, each being what its weights say that it is."""
    for name in names:
        if f"{name}.resample.1.weight" in w:
            x = resample(w, name, x)
        elif f"{name}.to_qkv.weight" in w:
            x = attention(w, name, x)
        else:
            x = residual(w, name, x)
    return x


@torch.no_grad()
def encode(w: Weights, video: torch.Tensor) -> torch.Tensor:
    """Mean and log-variance [b, 2z, n, h/8, w/8] of a clip [b, c, 4(n-1)+1, h, w]."""
    x = causal(w, "encoder.conv1", video)
    x = through(w, layers(w, "encoder.downsamples"), shrink, x)
    x = through(w, layers(w, "encoder.middle"), shrink, x)
    x = causal(w, "encoder.head.2", F.silu(norm(w, "encoder.head.0", x)))
    return causal(w, "conv1", x)


@torch.no_grad()
def decode(w: Weights, latents: torch.Tensor) -> torch.Tensor:
    """A clip [b, c, 4(n-1)+1, 8h, 8w], not clamped, of latents [b, z, n, h, w]."""
    x = causal(w, "decoder.conv1", causal(w, "conv2", latents))
    x = through(w, layers(w, "decoder.middle"), grow, x)
    x = through(w, layers(w, "decoder.upsamples"), grow, x)
    return causal(w, "decoder.head.2", F.silu(norm(w, "decoder.head.0", x)))
