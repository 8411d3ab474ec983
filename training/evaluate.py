"""How well does the tiny autoencoder give a real clip back?

Steps:

1. Read each clip's first frames: at most ``--frames``, cut down to 8k+1, full frame, with height
   and width cut down to multiples of 8 around the middle.
2. Encode to the posterior's mode and decode, with diffusers' own loop over chunks of frames.
3. Print the PSNR over all values of the clip in [-1, 1] (peak to peak 2, clamped) and that of its
   worst frame; print the latents' mean and spread.
4. On request store a picture: source above, result below, at the first, middle and last frame.

The module measures neither perceptual quality nor anything on frames that it was not given.
"""

import argparse
import sys
import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from data import to_signal
from families import FAMILIES
from PIL import Image
from torch import nn


def read_video(path: Path, frames: int) -> torch.Tensor:
    """Return the clip's first frames as [1, c, t, h, w] in [-1, 1]."""
    with av.open(str(path)) as container:
        images = [
            frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), frames)
        ]
    count = (len(images) - 1) // 8 * 8 + 1
    clip = np.stack(images[:count])
    top, left = clip.shape[1] % 8 // 2, clip.shape[2] % 8 // 2
    height, width = clip.shape[1] // 8 * 8, clip.shape[2] // 8 * 8
    return to_signal(clip[:, top : top + height, left : left + width])[None]


def psnr(error: torch.Tensor) -> float:
    """Return the PSNR of a mean squared error on a scale of -1 to 1."""
    return float(10.0 * torch.log10(4.0 / error))


@torch.no_grad()
def round_trip(vae: nn.Module, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the clamped result [1, c, t, h, w] and the latent [1, c, t, h, w]."""
    latent = vae.encode(video).latent_dist.mode()
    return vae.decode(latent).sample.clamp(-1.0, 1.0), latent


def side_by_side(video: torch.Tensor, result: torch.Tensor) -> Image.Image:
    """Return source above result at three times."""
    times = [0, video.shape[2] // 2, video.shape[2] - 1]
    rows = [torch.cat([clip[0, :, time] for time in times], dim=-1) for clip in (video, result)]
    pixels = torch.cat(rows, dim=-2).add(1.0).mul(127.5).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def report(vae: nn.Module, path: Path, frames: int, picture: Path | None) -> None:
    """Round-trip one clip and print its line."""
    video = read_video(path, frames)
    start = time.monotonic()
    result, latent = round_trip(vae, video)
    seconds = time.monotonic() - start
    error = (result - video).square()
    worst = psnr(error.mean(dim=(0, 1, 3, 4)).max())
    count, height, width = video.shape[2:]
    sys.stdout.write(
        f"{path.name}: {width}x{height}, {count} frames, {psnr(error.mean()):.2f} dB, "
        f"worst frame {worst:.2f} dB, latent mean {latent.mean():.3f} std {latent.std():.3f}, "
        f"{seconds:.1f} s\n"
    )
    sys.stdout.flush()
    if picture is not None:
        picture.mkdir(parents=True, exist_ok=True)
        side_by_side(video, result).save(picture / f"{path.stem}.png")


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description="Measure round trips of real clips.")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="cogvideox")
    parser.add_argument("weights", type=Path, help="folder of the weights")
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--picture", type=Path, help="folder for the pictures")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vae = FAMILIES[arguments.family].network.load(arguments.weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
        for path in arguments.clips:
            report(vae, path, arguments.frames, arguments.picture)


if __name__ == "__main__":
    main()
