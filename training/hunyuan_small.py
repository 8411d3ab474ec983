"""How were the small HunyuanVideo weights of docs/hunyuan.md made?

    python training/hunyuan_small.py docs/hunyuan_small

They learn one thing, the shipped clip, in a few minutes on a processor: enough for pictures in
which a wrong phase and a missing mask can be seen, and of no use for anything else.

1. A narrow `AutoencoderKLHunyuanVideo` starts from a fixed seed, its residual branches silent.
2. Each step takes one crop of 9 frames of the clip, at a third of its size, there and back, and
   lowers the mean absolute difference. Latents are held near the unit circle's size by a small
   weight on their squares; nothing is sampled.
3. Weights are stored in 16 bits, with their config.
"""

import argparse
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo

from vae_core import sample_clip_path
from vae_core.media.video import frames_to_tensor, read_video

STEPS, RATE, FRAMES, SIDE_PX, SHRINK = 300, 5e-3, 9, 32, 3

LOG = logging.getLogger(__name__)


def build() -> AutoencoderKLHunyuanVideo:
    """The network at its start."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        block_out_channels=(16, 16, 32, 32),
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
    )
    for name, module in vae.named_modules():
        if name.endswith("conv2.conv"):
            torch.nn.init.zeros_(module.weight)
    return vae


def clip() -> torch.Tensor:
    """The shipped clip [3, t, h, w], smaller."""
    video = frames_to_tensor(read_video(sample_clip_path()).frames)
    return F.avg_pool3d(video, (1, SHRINK, SHRINK))[0]


def crop(video: torch.Tensor) -> torch.Tensor:
    """Some of it: [1, 3, t, h, w]; mirrored half of the time."""
    _, t, h, w = video.shape
    start, top, left = (
        int(torch.randint(n - size + 1, ()))
        for n, size in ((t, FRAMES), (h, SIDE_PX), (w, SIDE_PX))
    )
    part = video[:, start : start + FRAMES, top : top + SIDE_PX, left : left + SIDE_PX]
    return (part if torch.rand(()) < 0.5 else part.flip(3))[None]


def train(vae: AutoencoderKLHunyuanVideo, steps: int) -> None:
    video, seen = clip(), 0.0
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, weight_decay=0.0, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    for step in range(steps):
        wanted = crop(video)
        mean = vae.quant_conv(vae.encoder(wanted)).chunk(2, 1)[0]
        made = vae.decoder(vae.post_quant_conv(mean))
        loss = (made - wanted).abs().mean() + 1e-3 * mean.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        seen = 0.95 * seen + 0.05 * float(loss.detach())
        if step % 20 == 19:
            LOG.info("step %d: %.4f", step + 1, seen / (1 - 0.95 ** (step + 1)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    vae = build()
    train(vae, chosen.steps)
    vae.to(torch.float16).save_pretrained(chosen.folder)


if __name__ == "__main__":
    main()
