"""What do the residual branches of the tiny Wan decoder start with?

With the best that random features can do:

1. The first norm makes all channels equally loud; the first convolution stays random, its biases
   spread over the bend of the activation.
2. The second convolution is the ridge regression, from what comes out of that, of what the stream
   still lacks of its target.  One branch after the other takes up what the ones before have left.

The module knows the Wan network's blocks only and moves nothing by gradients.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResidualBlock
from torch import nn
from torch.nn import functional

RIDGE = 1e-3
# How far the second norm reaches into the bend of the activation.
BEND = 1.5
# Rows that one regression sees.
ROWS = 120_000
# Clips whose features are held at a time.
BATCH = 8


def boost_all(level: nn.Module, stream: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Let a level's branches, one after the other, bring the stream's first channels to a target.

    The stream is [b, c, t, h, w], the target [b, k, t, h, w]; the stream behind the level returns.
    """
    for block in level.resnets:
        stream = boost(block, stream, target)
    return stream


def boost(block: WanResidualBlock, stream: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Let one branch add what the stream lacks."""
    entry = block.conv_shortcut(stream)
    count = target.shape[1]
    excite(block, stream)
    weight, bias = regress_batches(block, stream, target - entry[:, :count])
    conv = block.conv2
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:count] = weight.unflatten(1, conv.weight.shape[1:])
    conv.bias[:count] = bias
    for part, into in zip(stream.split(BATCH), entry.split(BATCH), strict=True):
        into += conv(features(block, part))
    return entry


def excite(block: WanResidualBlock, stream: torch.Tensor) -> None:
    """Make the hidden channels react to the stream."""
    block.norm1.gamma.fill_(1.0)
    loud = block.norm1(stream).square().mean(dim=(0, 2, 3, 4)).sqrt()
    block.norm1.gamma.copy_(1.0 / loud.clamp(min=0.01).view_as(block.norm1.gamma))
    fan_in = block.conv1.weight[0].numel()
    block.conv1.weight.normal_(0.0, (2.0 / fan_in) ** 0.5)
    block.conv1.bias.uniform_(-1.0, 1.0)
    block.norm2.gamma.fill_(BEND)


def features(block: WanResidualBlock, stream: torch.Tensor) -> torch.Tensor:
    """Return what the second convolution sees of a stream [b, c, t, h, w]."""
    hidden = block.conv1(functional.silu(block.norm1(stream)))
    return functional.silu(block.norm2(hidden))


def regress_batches(
    block: WanResidualBlock, stream: torch.Tensor, lack: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight [k, c 27] and bias [k] that predict the lack from the block's features."""
    rows = ROWS // len(stream)
    gram, moment = 0.0, 0.0
    for part, want in zip(stream.split(1), lack.split(1), strict=True):
        hidden = functional.pad(features(block, part), (1, 1, 1, 1, 2, 0))[0]
        taps = hidden.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)  # [c, t, h, w, 3, 3, 3]
        order = torch.randperm(want[0, 0].numel())[:rows]
        when, top, left = torch.unravel_index(order, want.shape[2:])
        seen = taps[:, when, top, left].movedim(1, 0).flatten(1)
        seen = functional.pad(seen, (0, 1), value=1.0)
        gram = gram + seen.T @ seen
        moment = moment + seen.T @ want[0][:, when, top, left].T
    gram = gram.double()
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram, moment.double()).T.float()
    return solved[:, :-1], solved[:, -1]
