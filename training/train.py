"""How were the weights in ``assets/tiny_vae`` made?

Steps:

1. Cache the training clips as uint8 arrays (``data.py``).
2. Start from a nearly linear coder (``network.py``) and train it for the first share of the
   time without its residual branches, which is several times cheaper a step and quickly beats
   what the full network reaches in the same time; then switch the branches on.
3. Until the time budget is spent: draw a crop shape from the phase of the run, round-trip a batch
   as diffusers does at inference, and step on the root of its squared error plus a very small
   divergence of the posterior from a unit normal.  Errors of colour weigh more at the start:
   otherwise whole hues are left out and stay so.
4. Keep an exponential mean of the weights; every few minutes store it, and a checkpoint from
   which ``--resume`` continues.  At the end store the last weights instead.

Small crops come first for many steps, large crops last, because normalisation statistics are
taken over the crop here and over the full frame at inference.  The script needs one processor
core and no accelerator.  It evaluates nothing: see ``evaluate.py``.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from data import CropSampler, CropShape, build_cache, load_clips
from network import build, export, replace_file, round_trip, use_branches
from optimizer import Mover, schedule
from safetensors.torch import load_file
from torch import nn

LOG = logging.getLogger("train")

# Share of the budget spent on the linear paths alone.
LINEAR_SHARE = 0.2
# (share of the budget at which the phase ends, [(weight, shape), ...]).  Only 8k+1 frames appear:
# that is what the family decodes to the length it was given.
PHASES = (
    (
        LINEAR_SHARE,
        [
            (0.30, CropShape(2, 9, 64, 64)),
            (0.30, CropShape(1, 9, 96, 96)),
            (0.27, CropShape(1, 17, 64, 64)),
            (0.13, CropShape(6, 1, 96, 96)),
        ],
    ),
    (
        0.55,
        [
            (0.50, CropShape(1, 9, 64, 64)),
            (0.12, CropShape(4, 1, 96, 96)),
            (0.23, CropShape(1, 17, 64, 64)),
            (0.15, CropShape(1, 9, 96, 96)),
        ],
    ),
    (
        0.85,
        [
            (0.25, CropShape(2, 9, 64, 64)),
            (0.08, CropShape(4, 1, 128, 128)),
            (0.30, CropShape(1, 17, 64, 64)),
            (0.25, CropShape(1, 9, 96, 96)),
            (0.10, CropShape(1, 17, 96, 96)),
            (0.02, CropShape(1, 33, 64, 64)),
        ],
    ),
    (
        1.01,
        [
            (0.35, CropShape(1, 9, 128, 128)),
            (0.08, CropShape(2, 1, 256, 256)),
            (0.35, CropShape(1, 17, 96, 96)),
            (0.20, CropShape(1, 17, 128, 128)),
            (0.02, CropShape(1, 33, 96, 96)),
        ],
    ),
)
# Share of the crops whose colour channels are permuted, before and after a share of the budget:
# first every hue must find its way through the network, then the usual hues count more.
PERMUTED = (0.8, 0.3)
PERMUTED_UNTIL = 0.45
MEAN_DECAY = 0.997
LOG_EVERY = 50
STORE_EVERY_SECONDS = 180.0
# Keeps the gradient of the root finite on crops of a single colour.
ROOT_FLOOR = 1e-4


@dataclass(frozen=True, slots=True)
class Settings:
    """What one run depends on, beside its data."""

    minutes: float
    rate: float
    branch_rate: float
    weight_decay: float
    divergence: float
    chroma: float
    warm_up: float
    decay_from: float
    seed: int


def chroma(video: torch.Tensor) -> torch.Tensor:
    """Return what is left of [b, c, t, h, w] without its grey part."""
    return video - video.mean(dim=1, keepdim=True)


class Trainer:
    """The network, its mover, its mean weights and the clock of the run."""

    def __init__(self, settings: Settings, cache: Path) -> None:
        self.settings = settings
        self.vae = build(settings.seed)
        self.mover = Mover(self.vae, settings.weight_decay)
        self.sampler = CropSampler(load_clips(cache), settings.seed)
        self.mean = {name: value.clone() for name, value in self.vae.state_dict().items()}
        self.steps = 0
        self.spent = 0.0

    @property
    def progress(self) -> float:
        """Return the share of the budget spent."""
        return self.spent / (60.0 * self.settings.minutes)

    def step(self) -> dict[str, float]:
        """Take one step and return what is worth logging."""
        settings = self.settings
        branches = self.progress >= LINEAR_SHARE
        use_branches(self.vae, branches)
        self.sampler.permuted = PERMUTED[self.progress >= PERMUTED_UNTIL]
        video = self.sampler.batch(self._draw_shape())
        with torch.autocast("cpu", torch.bfloat16):
            sample, divergence = round_trip(self.vae, video)
        error = nn.functional.mse_loss(sample, video, reduction="none").mean(dim=(1, 2, 3, 4))
        hue = nn.functional.mse_loss(chroma(sample), chroma(video))
        pull = settings.chroma * (1.0 - self.progress) * hue
        loss = (error + pull + ROOT_FLOOR).sqrt().mean() + settings.divergence * divergence.mean()
        loss.backward()
        rate = settings.branch_rate if branches else settings.rate
        factor = schedule(self.progress, settings.warm_up, settings.decay_from)
        norm = self.mover.step(rate * factor)
        self.steps += 1
        self._follow()
        psnr = 10.0 * torch.log10(4.0 / error.detach()).mean()
        return {
            "psnr": float(psnr),
            "hue_energy": float(chroma(video).square().mean()),
            "hue_error": float(hue.detach()),
            "kl": float(divergence.detach().mean()),
            "norm": norm,
        }

    def _draw_shape(self) -> CropShape:
        choices = next(choices for end, choices in PHASES if self.progress < end)
        weights = [weight for weight, _ in choices]
        index = self.sampler.random.choice(len(choices), p=weights)
        return choices[index][1]

    def _follow(self) -> None:
        # The mean forgets its start quickly at first, or early stored weights would be useless.
        decay = min(MEAN_DECAY, (1.0 + self.steps) / (10.0 + self.steps))
        for name, value in self.vae.state_dict().items():
            self.mean[name].lerp_(value, 1.0 - decay)

    def start_from(self, folder: Path, progress: float) -> None:
        """Continue from stored weights, with a fresh mover, at a share of the budget."""
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        self.vae.load_state_dict({name: value.float() for name, value in weights.items()})
        self.mean = {name: value.clone() for name, value in self.vae.state_dict().items()}
        self.spent = progress * 60.0 * self.settings.minutes

    def state_dict(self) -> dict:
        """Return what a checkpoint needs."""
        return {
            "vae": self.vae.state_dict(),
            "mover": self.mover.state_dict(),
            "mean": self.mean,
            "random": self.sampler.random.bit_generator.state,
            "torch_random": torch.get_rng_state(),
            "steps": self.steps,
            "spent": self.spent,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from a checkpoint."""
        self.vae.load_state_dict(state["vae"])
        self.mover.load_state_dict(state["mover"])
        self.mean = state["mean"]
        self.sampler.random.bit_generator.state = state["random"]
        torch.set_rng_state(state["torch_random"])
        self.steps, self.spent = state["steps"], state["spent"]


def run(trainer: Trainer, checkpoint: Path, output: Path) -> None:
    """Step until the budget is spent, storing every few minutes."""
    stored = trainer.spent
    lines: list[dict[str, float]] = []
    last = time.monotonic()
    while trainer.progress < 1.0:
        lines.append(trainer.step())
        now = time.monotonic()
        trainer.spent, last = trainer.spent + now - last, now
        if trainer.steps % LOG_EVERY == 0:
            LOG.info("step %d minute %.1f %s", trainer.steps, trainer.spent / 60.0, averages(lines))
            lines = []
        if trainer.spent - stored > STORE_EVERY_SECONDS:
            store(trainer, checkpoint, output)
            stored = trainer.spent
    store(trainer, checkpoint, output)


def averages(lines: list[dict[str, float]]) -> str:
    """Return the mean of each logged value as text."""
    return " ".join(f"{name} {fmean(line[name] for line in lines):.4f}" for name in lines[0])


def store(trainer: Trainer, checkpoint: Path, output: Path) -> None:
    """Write the checkpoint and the weights: their mean, or at the end the last ones."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    replace_file(checkpoint, lambda path: torch.save(trainer.state_dict(), path))
    # With the rate at zero the last weights carry no noise, while the mean still holds older ones.
    weights = trainer.mean if trainer.progress < 1.0 else trainer.vae.state_dict()
    export(weights, output, scaling_factor=1.0)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the tiny CogVideoX autoencoder.")
    parser.add_argument("clips", type=Path, help="folder of animated WebP clips")
    parser.add_argument("--cache", type=Path, required=True, help="folder for decoded clips")
    parser.add_argument("--checkpoint", type=Path, required=True, help="file to resume from")
    parser.add_argument("--output", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--minutes", type=float, default=27.0)
    parser.add_argument("--rate", type=float, default=2.5e-3, help="of the linear paths")
    parser.add_argument("--branch-rate", type=float, default=1e-3, help="with branches")
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--divergence", type=float, default=1e-3)
    parser.add_argument("--chroma", type=float, default=2.0, help="extra weight at the start")
    parser.add_argument("--warm-up", type=float, default=0.01)
    parser.add_argument("--decay-from", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--start", type=Path, help="folder of weights to start from")
    parser.add_argument(
        "--start-at", type=float, default=0.5, help="share of the budget taken as spent then"
    )
    return parser.parse_args()


def main() -> None:
    """Train from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    build_cache(arguments.clips, arguments.cache)
    values = {name: getattr(arguments, name) for name in Settings.__dataclass_fields__}
    trainer = Trainer(Settings(**values), arguments.cache)
    if arguments.resume and arguments.checkpoint.exists():
        trainer.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    elif arguments.start:
        trainer.start_from(arguments.start, arguments.start_at)
    run(trainer, arguments.checkpoint, arguments.output)


if __name__ == "__main__":
    main()
