"""What do the pictures of hunyuan.md show, and what are their figures?

    python docs/hunyuan.py

1. A run of the shipped clip goes through the small HunyuanVideo weights beside this file
   (`training/hunyuan_small.py`): encoded and decoded as the authors have it, as ComfyUI core has it
   in phase, and as core has it. `reference` chooses which.
2. The figures go to `hunyuan.json`, the pictures to `hunyuan_phase.png` and `hunyuan_mask.png`.

`hunyuan.md` is written by hand; a test holds it to the figures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

import vae_core
from vae_core import Settings
from vae_core.media.video import Selection, frames_to_tensor, read_video

DOCS = Path(__file__).resolve().parent
WEIGHTS = DOCS / "hunyuan_small"
NUMBERS = DOCS / "hunyuan.json"
PHASE, MASK = DOCS / "hunyuan_phase.png", DOCS / "hunyuan_mask.png"
SKIPPED, FRAMES, SHRINK, PX = 40, 17, 3, 8
SHOWN = (7, 11)
"""Sample frames that the pictures show."""
SCALE, GAP_PX, LABEL_PX, FACTOR = 3, 12, 30, 4
INK, PAPER = (24, 28, 34), (251, 251, 249)


def source() -> torch.Tensor:
    """The run of the clip: [1, 3, t, h, w] in [-1, 1]."""
    selection = Selection(skip_frames=SKIPPED, max_frames=FRAMES)
    video = frames_to_tensor(read_video(vae_core.sample_clip_path(), selection).frames)
    small = F.avg_pool3d(video, (1, SHRINK, SHRINK))
    height, width = (side // PX * PX for side in small.shape[3:])
    return small[..., :height, :width]


def measured() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The figures, and what they were measured on, by name."""
    vae, video = vae_core.load(WEIGHTS, dtype=torch.float32), source()
    by = {name: Settings(reference=name) for name in ("official", "core", "core-as-is")}
    latents = {name: vae.encode(video, chosen).mode() for name, chosen in by.items()}
    official = latents["official"]
    shown = {
        "source": video,
        "official": vae.decode(official, by["official"]),
        "out of phase": vae.decode(latents["core-as-is"], by["official"]),
        "core": vae.decode(latents["core"], by["core"]),
        "core-as-is": vae.decode(latents["core-as-is"], by["core-as-is"]),
        "without the mask": vae.decode(official, by["core"]),
    }
    weights = (WEIGHTS / "diffusion_pytorch_model.safetensors").read_bytes()
    numbers = {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "size": list(video.shape[2:]),
        "psnr_db": {name: psnr(made, video) for name, made in shown.items() if name != "source"},
        "apart_db": {
            "latents out of phase": psnr(latents["core-as-is"], official),
            "latents of core in phase": psnr(latents["core"], official),
            "pictures without the mask": psnr(shown["without the mask"], shown["official"]),
        },
    }
    return numbers, shown


def psnr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """In decibels, against the range of what is wanted; a decimal is enough."""
    square = (found - wanted).double().square().mean()
    return round(float(20 * torch.log10((wanted.max() - wanted.min()) / square.sqrt())), 1)


def levels(pictures: torch.Tensor) -> np.ndarray:
    """[t, h, w, 3] of 0 to 255."""
    return ((pictures[0].permute(1, 2, 3, 0) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def magnified(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """How far apart they are, white at a `FACTOR`-th of the range: [t, h, w, 3]."""
    apart = np.abs(levels(one).astype(int) - levels(other))
    return (apart * FACTOR).clip(0, 255).astype(np.uint8)


def slice_of(frames: np.ndarray) -> np.ndarray:
    """The middle row of every frame, one below the other."""
    return frames[:, frames.shape[1] // 2].repeat(4, axis=0)


def sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> Image.Image:
    """Labelled pictures, all as wide as each other, in rows."""
    tiles = [
        [
            (label, Image.fromarray(x).resize((x.shape[1] * SCALE, x.shape[0] * SCALE), 0))
            for label, x in row
        ]
        for row in rows
    ]
    width = max(sum(tile.width + GAP_PX for _, tile in row) for row in tiles) + GAP_PX
    height = sum(max(tile.height for _, tile in row) + LABEL_PX + GAP_PX for row in tiles) + GAP_PX
    page = Image.new("RGB", (width, height), PAPER)
    draw, font, top = ImageDraw.Draw(page), ImageFont.load_default(18), GAP_PX
    for row in tiles:
        left = GAP_PX
        for label, tile in row:
            draw.text((left, top + 4), label, INK, font)
            page.paste(tile, (left, top + LABEL_PX))
            left += tile.width + GAP_PX
        top += max(tile.height for _, tile in row) + LABEL_PX + GAP_PX
    return page


def compared(shown: dict[str, torch.Tensor], other: str, words: str) -> Image.Image:
    """The authors' result beside another, frames and slices, and how far they are apart."""
    pictures = {"source": shown["source"], "authors'": shown["official"], words: shown[other]}
    every = {name: levels(x) for name, x in pictures.items()}
    every[f"difference x{FACTOR}"] = magnified(shown[other], shown["official"])
    rows = [[(f"{name}, frame {frame}", x[frame]) for name, x in every.items()] for frame in SHOWN]
    return sheet(
        [*rows, [(f"{name}, one row over time", slice_of(x)) for name, x in every.items()]]
    )


def main() -> None:
    """Measure and draw."""
    numbers, shown = measured()
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    compared(shown, "out of phase", "out of phase").save(PHASE, optimize=True)
    compared(shown, "without the mask", "core's decoder").save(MASK, optimize=True)


if __name__ == "__main__":
    main()
