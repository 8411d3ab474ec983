"""What does the tiny Wan 2.1 autoencoder look like, how does it start, and how is it stored?

Steps:

1. ``build`` makes diffusers' ``AutoencoderKLWan`` at a narrow width, depth and levels as in the
   published network, because ComfyUI reads nothing but the width from a file, and gives it a start
   that is close to a linear transform coder.
2. ``round_trip`` encodes, samples and decodes a batch as one causal graph over the whole crop.  No
   statistic reaches beyond a voxel and every history before the clip is zero, hence this equals
   diffusers' own loop over chunks and costs less.
3. ``export`` writes float16 weights under the authors' names, which ComfyUI reads.

The module holds no training loop and no optimiser.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, WanResidualBlock
from safetensors.torch import load_file
from storing import mirror, store_half
from torch import nn
from torch.nn import functional

CONFIG = {"base_dim": 14, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
FILE = "tiny_wan_vae.safetensors"
# A constant channel in every residual stream at the start.  A norm over the channels of one voxel
# forgets how bright the voxel is; beside a constant, brightness and contrast survive it.
PEDESTAL = 4.0
# Share of the difference between two frames that the convolutions in time start with.
DIFFERENCE = 0.3
# (authors' name, diffusers' name) of the parts of one block, and of the blocks around them.
BLOCK_NAMES = {
    "norm1.": "residual.0.",
    "conv1.": "residual.2.",
    "norm2.": "residual.3.",
    "conv2.": "residual.6.",
    "conv_shortcut.": "shortcut.",
}
END_NAMES = {
    "quant_conv.": "conv1.",
    "post_quant_conv.": "conv2.",
    "encoder.conv_in.": "encoder.conv1.",
    "encoder.norm_out.": "encoder.head.0.",
    "encoder.conv_out.": "encoder.head.2.",
    "decoder.conv_in.": "decoder.conv1.",
    "decoder.norm_out.": "decoder.head.0.",
    "decoder.conv_out.": "decoder.head.2.",
}
BRANCH_PARTS = (".norm1.", ".conv1.", ".norm2.", ".conv2.")
MIDDLE_NAMES = {"resnets.0.": "0.", "attentions.0.": "1.", "resnets.1.": "2."}


def build(seed: int) -> AutoencoderKLWan:
    """Return the network at its start."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(**CONFIG)
    with torch.no_grad():
        initialise(vae)
    return channels_last(vae)


def channels_last(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """Lay the weights out so that a step on a processor takes about two thirds of the time."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    return vae


def initialise(vae: AutoencoderKLWan) -> None:
    """Start close to a linear coder: orthogonal maps, silent branches, a constant channel."""
    for name, module in vae.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.orthogonal_(module.weight)
            nn.init.zeros_(module.bias)
            # A residual branch that starts silent leaves a linear path from pixel to latent.
            if name.endswith(("conv2", "proj")):
                nn.init.zeros_(module.weight)
    for end in (vae.encoder, vae.decoder):
        for conv in (end.conv_in, end.conv_out):
            present_only(conv)
    mixing = {WanResample: start_resample, WanResidualBlock: start_shortcut}
    for module in vae.modules():
        mixing.get(type(module), lambda _: None)(module)
    raise_pedestal(vae.encoder.conv_in)
    raise_pedestal(vae.decoder.conv_in)
    start_heads(vae)


def present_only(conv: nn.Conv3d) -> None:
    """Start a causal convolution as one over the present frame: the past of a clip is zero."""
    present = torch.empty_like(conv.weight[:, :, -1])
    conv.weight.zero_()
    conv.weight[:, :, -1] = nn.init.orthogonal_(present)


def raise_pedestal(conv: nn.Module, channel: int = -1) -> None:
    """Make one output channel constant."""
    conv.weight[channel] = 0.0
    conv.bias[channel] = PEDESTAL


def start_shortcut(block: WanResidualBlock) -> None:
    """Let the constant pass where a block changes the number of channels."""
    if isinstance(block.conv_shortcut, nn.Conv3d):
        raise_pedestal(block.conv_shortcut)


def start_resample(block: WanResample) -> None:
    """Start the maps in time as a mean of two frames beside a part of their difference."""
    raise_pedestal(block.resample[1])
    if not block.mode.endswith("3d"):
        return
    conv, channels = block.time_conv, block.dim
    same = torch.eye(channels)
    turn = DIFFERENCE * nn.init.orthogonal_(torch.empty(channels, channels))
    conv.weight.zero_()
    if block.mode == "downsample3d":
        conv.weight[:, :, 1, 0, 0] = 0.5 * same - turn
        conv.weight[:, :, 2, 0, 0] = 0.5 * same + turn
        raise_pedestal(conv)
    else:
        conv.weight[:channels, :, 2, 0, 0] = same - turn.T
        conv.weight[channels:, :, 2, 0, 0] = same + turn.T
        raise_pedestal(conv, channels - 1)
        raise_pedestal(conv, -1)


def start_heads(vae: AutoencoderKLWan) -> None:
    """Let what reaches each last convolution come in pairs of opposite sign."""
    levels = vae.encoder.down_blocks
    last = next(block for block in reversed(levels) if isinstance(block, WanResample))
    pairs = [(last.time_conv, vae.encoder.conv_out)]
    pairs.append((vae.decoder.up_blocks[-2].upsamplers[0].resample[1], vae.decoder.conv_out))
    for before, after in pairs:
        mirror(before, after)
        for channel, sign in ((-2, 1.0), (-1, -1.0)):
            raise_pedestal(before, channel)
            before.bias[channel] *= sign
        after.weight.mul_(PEDESTAL * (2.0 / before.out_channels) ** 0.5)


def is_branch(name: str) -> bool:
    """Say whether a weight belongs to a residual branch."""
    return "attentions" in name or any(part in name for part in BRANCH_PARTS)


def use_branches(vae: AutoencoderKLWan, finest: tuple[float, float]) -> None:
    """Switch residual branches on where sides are reduced at least by ``finest``, else off.

    ``finest`` holds one value for the encoder and one for the decoder.  Most of a step is spent on
    full sides; without any branch it costs a sixth.
    """
    for block, reduced, end in reductions(vae):
        block.__dict__.pop("forward", None)
        if reduced < finest[end]:
            shortcut = getattr(block, "conv_shortcut", None)
            block.forward = (shortcut if isinstance(shortcut, nn.Conv3d) else nn.Identity()).forward


def reductions(vae: AutoencoderKLWan) -> Iterator[tuple[nn.Module, float, int]]:
    """Yield every block with a branch, the reduction of the sides there, and 1 in the decoder."""
    ends = [[*vae.encoder.down_blocks, *middle(vae.encoder)], decoder_layers(vae.decoder)]
    for end, (layers, reduced, factor) in enumerate(zip(ends, (1.0, 8.0), (2.0, 0.5), strict=True)):
        for layer in layers:
            if isinstance(layer, WanResample):
                reduced *= factor
            else:
                yield layer, reduced, end


def resample(block: WanResample, hidden: torch.Tensor) -> torch.Tensor:
    """Change the resolution [b, c, t, h, w]; the first frame passes by the maps in time."""
    if block.mode.startswith("upsample"):
        return resample_space(block, resample_time(block, hidden))
    return resample_time(block, resample_space(block, hidden))


def resample_space(block: WanResample, hidden: torch.Tensor) -> torch.Tensor:
    """Change the sides alone."""
    pictures = block.resample(hidden.transpose(1, 2).flatten(0, 1))
    return pictures.unflatten(0, (hidden.shape[0], -1)).transpose(1, 2)


def resample_time(block: WanResample, hidden: torch.Tensor) -> torch.Tensor:
    """Change the number of frames alone, where the block does."""
    if not hasattr(block, "time_conv") or hidden.shape[2] == 1:
        return hidden
    first = hidden[:, :, :1]
    if block.mode == "downsample3d":
        return torch.cat([first, block.time_conv(hidden)], dim=2)
    pairs = block.time_conv(hidden[:, :, 1:]).unflatten(1, (2, -1))  # [b, 2, c, t, h, w]
    return torch.cat([first, pairs.movedim(1, 3).flatten(2, 3)], dim=2)


def run(end: nn.Module, levels: list[nn.Module], hidden: torch.Tensor) -> torch.Tensor:
    """Run the layers between the two ends of an encoder or a decoder."""
    for layer in levels:
        hidden = resample(layer, hidden) if isinstance(layer, WanResample) else layer(hidden)
    return end.conv_out(functional.silu(end.norm_out(hidden)))


def middle(end: nn.Module) -> list[nn.Module]:
    """Return the layers of the middle block in order."""
    before, after = end.mid_block.resnets
    return [before, end.mid_block.attentions[0], after]


def decoder_layers(decoder: nn.Module) -> list[nn.Module]:
    """Return the layers between a decoder's ends in order."""
    layers = middle(decoder)
    for block in decoder.up_blocks:
        layers += [*block.resnets, *(block.upsamplers or ())]
    return layers


def moments(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Return mean and log-variance [b, 2c, t, h, w] of a clip of 4k+1 frames."""
    encoder = vae.encoder
    levels = [*encoder.down_blocks, *middle(encoder)]
    return vae.quant_conv(run(encoder, levels, encoder.conv_in(video)))


def sample(vae: AutoencoderKLWan, latent: torch.Tensor) -> torch.Tensor:
    """Return the decoded clip [b, c, t, h, w], not clamped."""
    decoder = vae.decoder
    return run(decoder, decoder_layers(decoder), decoder.conv_in(vae.post_quant_conv(latent)))


def round_trip(vae: AutoencoderKLWan, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the decoded sample [b, c, t, h, w] and the divergence per latent value [b]."""
    video = video.contiguous(memory_format=torch.channels_last_3d)
    mean, logvar = moments(vae, video).float().chunk(2, dim=1)
    logvar = logvar.clamp(-30.0, 20.0)
    latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    return sample(vae, latent).float(), divergence.mean(dim=(1, 2, 3, 4))


def authors_name(name: str) -> str:
    """Return the name by which the authors and ComfyUI know a weight of diffusers' class."""
    for ours, theirs in END_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    for ours, theirs in BLOCK_NAMES.items():
        name = name.replace(f".{ours}", f".{theirs}")
    for ours, theirs in MIDDLE_NAMES.items():
        name = name.replace(f"mid_block.{ours}", f"middle.{theirs}")
    name = name.replace("down_blocks.", "downsamples.")
    return upsample_name(name) if "up_blocks." in name else name


def upsample_name(name: str) -> str:
    """Number the layers of the decoder's levels through."""
    end, _, level, kind, index, *rest = name.split(".")
    blocks = CONFIG["num_res_blocks"] + 1
    number = int(level) * (blocks + 1) + (int(index) if kind == "resnets" else blocks)
    return ".".join([end, "upsamples", str(number), *rest])


def export(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Store the weights as float16 under the authors' names."""
    named = {authors_name(name): value for name, value in state.items()}
    store_half(named, folder / FILE)


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return stored weights as float32 under diffusers' names."""
    stored = load_file(folder / FILE)
    names = AutoencoderKLWan(**CONFIG).state_dict()
    return {name: stored[authors_name(name)].float() for name in names}


def load(folder: Path) -> AutoencoderKLWan:
    """Return the stored network, ready to run."""
    vae = AutoencoderKLWan(**CONFIG)
    vae.load_state_dict(load_state(folder))
    return vae.eval()


def scale(folder: Path, spread: float) -> None:
    """Store nothing: in this family the host's mean and spread of each channel do the scaling."""
