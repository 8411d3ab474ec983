"""How large are the latents, and what does that say about the configuration?

Steps:

1. Encode the first nine frames of evenly chosen training clips to the posterior's mode.
2. Print the mean and the standard deviation over all latent values, and those of each channel.
3. Where the family has one scaling factor, write ``1 / std``, rounded to four digits, into its
   configuration.

The module changes no weight and never reads an evaluation clip.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from data import load_clips, to_signal
from families import FAMILIES
from torch import nn

CLIPS = 16
FRAMES = 9
MAX_SIDE = 256


def latents(vae: nn.Module, clips: list[np.ndarray]) -> torch.Tensor:
    """Return the latents [c, n] of the clips' first frames."""
    long = [clip for clip in clips if len(clip) >= FRAMES]
    values = []
    for clip in long[:: max(len(long) // CLIPS, 1)]:
        height, width = (min(side, MAX_SIDE) // 8 * 8 for side in clip.shape[1:3])
        video = to_signal(clip[:FRAMES, :height, :width])[None]  # [b, c, t, h, w]
        values.append(vae.encode(video).latent_dist.mode()[0].flatten(1))
    return torch.cat(values, dim=1)


def main() -> None:
    """Measure and store from the command line."""
    parser = argparse.ArgumentParser(description="Set the scaling factor from the latents.")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="cogvideox")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = FAMILIES[arguments.family].network
    vae = network.load(arguments.weights)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        values = latents(vae, load_clips(arguments.cache)).float()
    sys.stdout.write(f"latent mean {values.mean():.4f} std {values.std():.4f}\n")
    sys.stdout.write(f"mean of each channel {listed(values.mean(dim=1))}\n")
    sys.stdout.write(f"std of each channel {listed(values.std(dim=1))}\n")
    network.scale(arguments.weights, float(values.std()))


def listed(values: torch.Tensor) -> str:
    """Return the values as text."""
    return " ".join(f"{value:.4f}" for value in values)


if __name__ == "__main__":
    main()
