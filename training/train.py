"""How were the weights in ``assets/tiny_vae`` and ``assets/tiny_wan_vae`` made?

Steps:

1. Cache the training clips as uint8 arrays (``data.py``).
2. Start from a nearly linear coder (``network_FAMILY.py``) and train it for the first share of the
   time without its residual branches, which is several times cheaper a step and quickly beats
   what the full network reaches in the same time; then switch the branches on.
3. Until the time budget is spent: draw a crop shape from the phase of the run (``recipes.py``),
   round-trip a batch to the result that diffusers has at inference, and step on the root of its
   squared error plus a very small divergence of the posterior from a unit normal.  Errors of
   colour weigh more at the start: otherwise whole hues are left out and stay so.
4. Keep an exponential mean of the weights; every few minutes store it, and a checkpoint from
   which ``--resume`` continues.  At the end store the last weights instead.

The script needs one processor core and no accelerator.  It evaluates nothing: see ``evaluate.py``.
"""

import argparse
import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import recipes
import team
import torch
from data import CropSampler, CropShape, build_cache, load_clips
from families import FAMILIES, Family
from optimizer import Mover, schedule
from storing import replace_file
from torch import nn

LOG = logging.getLogger("train")

MEAN_DECAY = 0.997
LOG_EVERY = 50
# Steps that the processes of a team take by themselves.
MEET_EVERY = 8
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

    def __init__(self, family: Family, settings: Settings, cache: Path) -> None:
        self.family = family
        self.settings = settings
        self.vae = family.network.build(settings.seed)
        self.mover = Mover(
            self.vae, family.network.is_branch, settings.weight_decay, family.recipe.matrices
        )
        self.sampler = CropSampler(load_clips(cache), settings.seed + team.rank())
        # The same in every process of a team, so that all of them draw one shape.
        self.shapes = np.random.default_rng(settings.seed)
        self.mean = {name: value.clone() for name, value in self.vae.state_dict().items()}
        self.steps = 0
        self.spent = 0.0

    @property
    def progress(self) -> float:
        """Return the share of the budget spent."""
        return self.spent / (60.0 * self.settings.minutes)

    def step(self) -> dict[str, float]:
        """Take one step and return what is worth logging."""
        settings, recipe, network = self.settings, self.family.recipe, self.family.network
        finest = recipe.finest(self.progress)
        network.use_branches(self.vae, finest)
        self.sampler.permuted = recipe.permuted[self.progress >= recipe.permuted_until]
        video = self.sampler.batch(self._draw_shape())
        with torch.autocast("cpu", torch.bfloat16):
            sample, divergence = network.round_trip(self.vae, video)
        error = nn.functional.mse_loss(sample, video, reduction="none").mean(dim=(1, 2, 3, 4))
        hue = nn.functional.mse_loss(chroma(sample), chroma(video))
        pull = settings.chroma * (1.0 - self.progress) * hue
        loss = (error + pull + ROOT_FLOOR).sqrt().mean() + settings.divergence * divergence.mean()
        loss.backward()
        linear = finest == recipes.NO_BRANCH
        rate = settings.rate if linear else settings.branch_rate
        factor = schedule(self.progress, settings.warm_up, settings.decay_from)
        norm = self.mover.step(rate * factor, 1.0 if linear else recipe.linear_rate)
        self.steps += 1
        if self.steps % MEET_EVERY == 0:
            team.average(self.vae)
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
        choices = self.family.recipe.choices(self.progress)
        weights = [weight for weight, _ in choices]
        index = self.shapes.choice(len(choices), p=weights)
        return choices[index][1]

    def _follow(self) -> None:
        # The mean forgets its start quickly at first, or early stored weights would be useless.
        decay = min(MEAN_DECAY, (1.0 + self.steps) / (10.0 + self.steps))
        for name, value in self.vae.state_dict().items():
            self.mean[name].lerp_(value, 1.0 - decay)

    def start_afresh(self) -> None:
        """Compute the start on training crops, where the family has more than a random one."""
        if self.family.start is not None and not team.rank():
            self.family.start(self.vae, self.sampler)
        self._settle()

    def start_from(self, folder: Path, progress: float) -> None:
        """Continue from stored weights, with a fresh mover, at a share of the budget."""
        self.vae.load_state_dict(self.family.network.load_state(folder))
        self.spent = progress * 60.0 * self.settings.minutes
        self._settle()

    def _settle(self) -> None:
        team.share(self.vae)
        self.mean = {name: value.clone() for name, value in self.vae.state_dict().items()}

    def state_dict(self) -> dict:
        """Return what a checkpoint needs."""
        return {
            "vae": self.vae.state_dict(),
            "mover": self.mover.state_dict(),
            "mean": self.mean,
            "shapes": self.shapes.bit_generator.state,
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
        self.shapes.bit_generator.state = state["shapes"]
        self.sampler.random.bit_generator.state = state["random"]
        torch.set_rng_state(state["torch_random"])
        self.steps, self.spent = state["steps"], state["spent"]


def run(trainer: Trainer, checkpoint: Path, output: Path) -> None:
    """Step until the budget is spent, storing every few minutes."""
    stored = trainer.spent
    lines: list[dict[str, float]] = []
    last = worked()
    while trainer.progress < 1.0:
        lines.append(trainer.step())
        # The clock only moves where a team meets, so that all of it stops after the same step.
        if trainer.steps % MEET_EVERY == 0:
            now = worked()
            trainer.spent, last = team.agree(trainer.spent + now - last), now
        if team.rank():
            continue
        if trainer.steps % LOG_EVERY == 0:
            LOG.info("step %d minute %.1f %s", trainer.steps, trainer.spent / 60.0, averages(lines))
            lines = []
        if trainer.spent - stored > STORE_EVERY_SECONDS:
            store(trainer, checkpoint, output)
            stored = trainer.spent
    if not team.rank():
        store(trainer, checkpoint, output)


def worked() -> float:
    """Return the seconds that this process has worked; those that it waited for others are none."""
    return time.process_time() / torch.get_num_threads()


def averages(lines: list[dict[str, float]]) -> str:
    """Return the mean of each logged value as text."""
    return " ".join(f"{name} {fmean(line[name] for line in lines):.4f}" for name in lines[0])


def store(trainer: Trainer, checkpoint: Path, output: Path) -> None:
    """Write the checkpoint and the weights: their mean, or at the end the last ones."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    replace_file(checkpoint, lambda path: torch.save(trainer.state_dict(), path))
    # With the rate at zero the last weights carry no noise, while the mean still holds older ones.
    weights = trainer.mean if trainer.progress < 1.0 else trainer.vae.state_dict()
    trainer.family.network.export(weights, output)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a tiny autoencoder.")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="cogvideox")
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
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--processes", type=int, default=1, help="that draw a batch each")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--start", type=Path, help="folder of weights to start from")
    parser.add_argument(
        "--start-at", type=float, default=0.5, help="share of the budget taken as spent then"
    )
    return parser.parse_args()


def work(arguments: argparse.Namespace) -> None:
    """Train in this process, alone or as one of a team."""
    torch.set_num_threads(arguments.threads)
    values = {name: getattr(arguments, name) for name in Settings.__dataclass_fields__}
    trainer = Trainer(FAMILIES[arguments.family], Settings(**values), arguments.cache)
    if arguments.resume and arguments.checkpoint.exists():
        trainer.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
    elif arguments.start:
        trainer.start_from(arguments.start, arguments.start_at)
    else:
        trainer.start_afresh()
    run(trainer, arguments.checkpoint, arguments.output)


def main() -> None:
    """Train from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = parse()
    build_cache(arguments.clips, arguments.cache)
    team.run(arguments.processes, partial(work, arguments))


if __name__ == "__main__":
    main()
