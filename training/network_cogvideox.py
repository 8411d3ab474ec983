"""What does the tiny CogVideoX autoencoder look like, how does it start, and how is it stored?

Steps:

1. ``build`` makes diffusers' ``AutoencoderKLCogVideoX`` at a narrow width, everything else as in
   the CogVideoX family, and gives it a start that is close to a linear transform coder.
2. ``round_trip`` encodes, samples and decodes a batch exactly as diffusers does at inference:
   chunks of frames with the causal cache carried over, normalisation statistics per chunk.
3. ``export`` writes float16 weights and the configuration, each by an atomic rename.

The module holds no training loop and no optimiser.
"""

from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import CogVideoXResnetBlock3D
from safetensors.torch import load_file
from storing import mirror, replace_file, store_half
from torch import nn

CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("CogVideoXDownBlock3D",) * 4,
    "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (32, 32, 64, 64),
    "latent_channels": 16,
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_eps": 1e-6,
    "norm_num_groups": 32,
    "temporal_compression_ratio": 4,
    "sample_height": 480,
    "sample_width": 720,
}
FILE = "diffusion_pytorch_model.safetensors"
# By how much the network reduces the sides of a picture.
REDUCTION = 8
# Constant part of the encoder's last residual stream at the start.
PEDESTAL = 2.0


def build(seed: int) -> AutoencoderKLCogVideoX:
    """Return the network at its start."""
    torch.manual_seed(seed)
    vae = AutoencoderKLCogVideoX(**CONFIG)
    with torch.no_grad():
        initialise(vae)
    return vae


def initialise(vae: AutoencoderKLCogVideoX) -> None:
    """Start close to a linear coder: orthogonal maps, silent residual branches, plain norms."""
    for name, module in vae.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Conv3d)):
            continue
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(module.bias)
        # A residual branch that starts silent leaves a linear path from pixel to latent.
        if name.endswith(("conv2.conv", "conv_y.conv", "conv_b.conv")):
            nn.init.zeros_(module.weight)
        # The latent-conditioned norm starts as a plain norm: gain one, offset zero.
        if name.endswith("conv_y.conv"):
            nn.init.ones_(module.bias)
    encoder, decoder = vae.encoder, vae.decoder
    mirror(encoder.down_blocks[-2].downsamplers[0].conv, encoder.conv_out.conv)
    mirror(decoder.up_blocks[-2].upsamplers[0].conv, decoder.conv_out.conv)
    # Encoder groups hold one mirrored pair each.  A constant in it makes the statistics nearly
    # independent of the picture, so that brightness and contrast survive the norm.
    bias = encoder.down_blocks[-2].downsamplers[0].conv.bias
    bias[0::2] = PEDESTAL
    bias[1::2] = -PEDESTAL


def shortcut_only(block: CogVideoXResnetBlock3D, *inputs: object, **_: object) -> tuple:
    """Stand in for a residual block whose branch is left out."""
    hidden = inputs[0]
    if block.in_channels != block.out_channels:
        hidden = block.conv_shortcut(hidden)
    return hidden, {}


def is_branch(name: str) -> bool:
    """Say whether a weight belongs to a residual branch."""
    return ".resnets." in name and "shortcut" not in name


def use_branches(vae: AutoencoderKLCogVideoX, finest: tuple[float, float]) -> None:
    """Switch all residual branches on, or off where ``finest`` is beyond every reduction.

    Without them a step costs about a quarter.
    """
    for block in vae.modules():
        if isinstance(block, CogVideoXResnetBlock3D):
            block.__dict__.pop("forward", None)
            if max(finest) > REDUCTION:
                block.forward = partial(shortcut_only, block)


def round_trip(
    vae: AutoencoderKLCogVideoX, video: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the decoded sample [b, c, t, h, w] and the divergence per latent value [b]."""
    posterior = vae.encode(video).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
    divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
    return vae.decode(latent).sample.float(), divergence.mean(dim=(1, 2, 3, 4))


def export(state: dict[str, torch.Tensor], folder: Path, scaling_factor: float = 1.0) -> None:
    """Store the weights as float16 and the configuration beside them."""
    store_half(state, folder / FILE)
    vae = AutoencoderKLCogVideoX(**CONFIG, scaling_factor=scaling_factor)
    replace_file(folder / "config.json", lambda path: path.write_text(vae.to_json_string()))


def load_state(folder: Path) -> dict[str, torch.Tensor]:
    """Return stored weights as float32."""
    return {name: value.float() for name, value in load_file(folder / FILE).items()}


def load(folder: Path) -> AutoencoderKLCogVideoX:
    """Return the stored network, ready to run."""
    return AutoencoderKLCogVideoX.from_pretrained(folder).eval()


def scale(folder: Path, spread: float) -> None:
    """Store the scaling factor that brings latents of this spread to one."""
    export(load_state(folder), folder, float(f"{1.0 / spread:.4g}"))
