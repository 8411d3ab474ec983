"""How were the small HunyuanVideo weights of docs/hunyuan.md made?

    python training/hunyuan_small.py run/hunyuan.pt docs/hunyuan_small

They learn one thing, the shipped clip at half its size, in minutes of one processor core: enough
for pictures in which a wrong phase and a missing mask can be seen, and of no use for anything else.

1. A narrow `AutoencoderKLHunyuanVideo` starts from a fixed seed as a linear coder: residual
   branches silent, channels before the last norms in pairs of opposite sign (`storing.mirror`).
2. For the first steps its branches stay off; a step then costs a fraction. When they join, the
   attentions in the middle are given a share of what arrives there: left silent at their start they
   hardly learn anything, and with or without a mask would be all the same.
3. Each step takes a crop of the clip there and back through diffusers' modules, which have the mask
   and take statistics over the whole crop, and lowers the root of the squared error. Latents are
   held near size one by a small weight on their squares; nothing is sampled.
4. A mean of the last weights is stored every few minutes, in 16 bits and with the config, beside a
   checkpoint from which the next call continues.
"""

import argparse
import logging
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import (
    HunyuanVideoMidBlock3D,
    HunyuanVideoResnetBlockCausal3D,
)
from optimizer import Mover, OrthogonalMomentum, schedule
from storing import mirror, replace_file, store_half
from torch import nn

from vae_core import sample_clip_path
from vae_core.media.video import frames_to_tensor, read_video

SHRINK = 2
SHAPES = ((0.75, (9, 64, 64)), (0.9, (17, 64, 64)), (1.01, (17, 96, 96)))
"""Share of the steps at which each ends: frames, height and width of the crops."""
LINEAR = 0.1
"""Share of the steps without branches."""
RATE, BRANCH_RATE, PATH, PULL, MEAN_DECAY = 5e-3, 2e-3, 0.4, 1e-4, 0.99
"""Of the linear path alone, of the branches, then of the path as a share of it; of the latents."""
PEDESTAL = 2.0
STREAM, SHARP, SHARE = 20.0, 4.0, 1.5
"""Size of what arrives in the middle; gain of its queries and keys; share of its attention."""
STORE_EVERY, LOG_EVERY = 100, 25

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
        norm_num_groups=8,
    )
    with torch.no_grad():
        for name, module in vae.named_modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.orthogonal_(module.weight)
                nn.init.zeros_(module.bias)
                if name.endswith(("conv2.conv", "to_out.0")):
                    nn.init.zeros_(module.weight)
        before = vae.encoder.down_blocks[-2].downsamplers[0].conv.conv
        mirror(before, vae.encoder.conv_out.conv)
        mirror(vae.decoder.up_blocks[-2].upsamplers[0].conv.conv, vae.decoder.conv_out.conv)
        before.bias[0::2], before.bias[1::2] = PEDESTAL, -PEDESTAL
    return vae


def shortcut_only(block: HunyuanVideoResnetBlockCausal3D, hidden: torch.Tensor) -> torch.Tensor:
    """Stand in for a residual block whose branch is off."""
    return hidden if block.conv_shortcut is None else block.conv_shortcut(hidden)


def use_branches(vae: nn.Module, on: bool) -> None:
    """Switch residual blocks and the middle's attention on or off."""
    for block in vae.modules():
        block.__dict__.pop("forward", None)
        if not on and isinstance(block, HunyuanVideoResnetBlockCausal3D):
            block.forward = partial(shortcut_only, block)
        if not on and isinstance(block, HunyuanVideoMidBlock3D):
            block.forward = nn.Identity().forward


def is_branch(name: str) -> bool:
    """Whether a weight belongs to one of them."""
    return "attentions" in name or (".resnets." in name and "shortcut" not in name)


def path(end: nn.Module) -> list[nn.Conv3d]:
    """The convolutions of an encoder's or decoder's linear path, up to its last norm."""
    named = (pair for pair in end.named_modules() if isinstance(pair[1], nn.Conv3d))
    return [conv for name, conv in named if name != "conv_out.conv" and not is_branch(f".{name}")]


@torch.no_grad()
def join_branches(vae: AutoencoderKLHunyuanVideo, video: torch.Tensor) -> None:
    """Bring what arrives in the middle to one size, which the last norm does not see, and let the
    attentions there begin with a share of it.
    """
    sizes: list[float] = []
    ends = (vae.encoder, vae.decoder)

    def note(_: nn.Module, given: tuple[torch.Tensor], __: torch.Tensor) -> None:
        sizes.append(float(given[0].std()))

    hooks = [end.mid_block.register_forward_hook(note) for end in ends]
    vae.decoder(vae.post_quant_conv(vae.quant_conv(vae.encoder(video)).chunk(2, 1)[0]))
    for end, size, hook in zip(ends, sizes, hooks, strict=True):
        hook.remove()
        convs = path(end)
        for number, conv in enumerate(convs, 1):
            conv.weight.mul_((STREAM / size) ** (1 / len(convs)))
            conv.bias.mul_((STREAM / size) ** (number / len(convs)))
        attention = end.mid_block.attentions[0]
        for map_to, gain in zip(
            (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]),
            (SHARP, SHARP, 1.0, SHARE * STREAM),
            strict=True,
        ):
            nn.init.orthogonal_(map_to.weight, gain)


def clip() -> torch.Tensor:
    """The shipped clip [3, t, h, w], smaller."""
    video = frames_to_tensor(read_video(sample_clip_path()).frames)
    return F.avg_pool3d(video, (1, SHRINK, SHRINK))[0]


def crop(video: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Some of it: [1, 3, t, h, w]; mirrored half of the time."""
    for axis, size in enumerate(shape, 1):
        start = int(torch.randint(video.shape[axis] - size + 1, ()))
        video = video.narrow(axis, start, size)
    return (video if torch.rand(()) < 0.5 else video.flip(3))[None]


class Run:
    """The network, what moves it, and how much of the time is spent."""

    def __init__(self, minutes: float) -> None:
        self.vae, self.video = build(), clip()
        self.seconds, self.spent, self.steps, self.joined = 60 * minutes, 0.0, 0, False
        self.mover = Mover(self.vae, is_branch, 0.0, OrthogonalMomentum)
        self.mean = {name: value.clone() for name, value in self.vae.state_dict().items()}

    @property
    def progress(self) -> float:
        """The share of the time that is spent."""
        return self.spent / self.seconds

    def step(self) -> float:
        """Take one step; the crop's PSNR."""
        began, progress = time.process_time(), self.progress
        linear = progress < LINEAR
        use_branches(self.vae, not linear)
        wanted = crop(self.video, next(shape for end, shape in SHAPES if progress < end))
        if not linear and not self.joined:
            join_branches(self.vae, wanted)
            self.joined = True
        with torch.autocast("cpu", torch.bfloat16):
            latents = self.vae.quant_conv(self.vae.encoder(wanted)).chunk(2, 1)[0].float()
            made = self.vae.decoder(self.vae.post_quant_conv(latents)).float()
        square = F.mse_loss(made, wanted)
        (square.sqrt() + PULL * latents.square().mean()).backward()
        rate = schedule(progress, 0.01, 0.4) * (RATE if linear else BRANCH_RATE)
        self.mover.step(rate, 1.0 if linear else PATH)
        self.steps += 1
        keep = min(MEAN_DECAY, self.steps / (10 + self.steps))
        for name, value in self.vae.state_dict().items():
            self.mean[name].lerp_(value, 1 - keep)
        self.spent += time.process_time() - began
        return float(10 * torch.log10(4 / square.detach()))

    def state(self) -> dict:
        """What a checkpoint needs."""
        plain = {name: getattr(self, name) for name in ("spent", "steps", "joined", "mean")}
        random = torch.get_rng_state()
        return {
            **plain, "vae": self.vae.state_dict(), "mover": self.mover.state_dict(),
            "random": random,
        }  # fmt: skip

    def go_on(self, state: dict) -> None:
        """Continue from a checkpoint."""
        self.vae.load_state_dict(state["vae"])
        self.mover.load_state_dict(state["mover"])
        for name in ("spent", "steps", "joined", "mean"):
            setattr(self, name, state[name])
        torch.set_rng_state(state["random"])

    def store(self, checkpoint: Path, folder: Path) -> None:
        """Write the checkpoint, and the mean weights in 16 bits."""
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        replace_file(checkpoint, lambda path: torch.save(self.state(), path))
        store_half(self.mean, folder / "diffusion_pytorch_model.safetensors")
        text = self.vae.to_json_string()
        replace_file(folder / "config.json", lambda path: path.write_text(text, encoding="utf-8"))


def main() -> None:
    """Train until the time is spent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="file to go on from, if it is there")
    parser.add_argument("folder", type=Path, help="for the weights and their config")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    run, seen = Run(chosen.minutes), []
    if chosen.checkpoint.exists():
        run.go_on(torch.load(chosen.checkpoint, weights_only=True))
    while run.progress < 1:
        seen.append(run.step())
        if run.steps % LOG_EVERY == 0:
            mean = sum(seen) / len(seen)
            LOG.info("step %d, %.1f min: %.2f dB", run.steps, run.spent / 60, mean)
            seen = []
        if run.steps % STORE_EVERY == 0:
            run.store(chosen.checkpoint, chosen.folder)
    run.store(chosen.checkpoint, chosen.folder)


if __name__ == "__main__":
    main()
