"""How large are the latents, hence which scaling factor belongs into the configuration?

Steps:

1. Encode the first nine frames of evenly chosen training clips to the posterior's mode.
2. Print the mean and the standard deviation over all latent values.
3. Write ``1 / std``, rounded to four digits, into ``config.json`` as ``scaling_factor``.

The module changes no weight and never reads an evaluation clip.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from data import load_clips, to_signal
from diffusers import AutoencoderKLCogVideoX
from network import export

CLIPS = 16
FRAMES = 9
MAX_SIDE = 256


def latents(vae: AutoencoderKLCogVideoX, clips: list[np.ndarray]) -> torch.Tensor:
    """Return all latent values of the clips' first frames."""
    long = [clip for clip in clips if len(clip) >= FRAMES]
    values = []
    for clip in long[:: max(len(long) // CLIPS, 1)]:
        height, width = (min(side, MAX_SIDE) // 8 * 8 for side in clip.shape[1:3])
        video = to_signal(clip[:FRAMES, :height, :width])[None]  # [b, c, t, h, w]
        values.append(vae.encode(video).latent_dist.mode().flatten())
    return torch.cat(values)


def main() -> None:
    """Measure and store from the command line."""
    parser = argparse.ArgumentParser(description="Set the scaling factor from the latents.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vae = AutoencoderKLCogVideoX.from_pretrained(arguments.weights).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        values = latents(vae, load_clips(arguments.cache)).float()
    factor = float(f"{1.0 / values.std():.4g}")
    export(vae.state_dict(), arguments.weights, factor)
    sys.stdout.write(
        f"latent mean {values.mean():.4f} std {values.std():.4f} scaling_factor {factor}\n"
    )


if __name__ == "__main__":
    main()
