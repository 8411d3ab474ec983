"""What do the pictures of hunyuan.md show, and what are their figures?

    python docs/hunyuan.py

1. A run of the shipped clip goes through the small HunyuanVideo weights in `hunyuan_small`
   (`hunyuan_measure.py`); on one CPU core that takes a few minutes.
2. The figures go to `hunyuan.json`, the pictures (`hunyuan_draw.py`) to `hunyuan_phase.png` and
   `hunyuan_mask.png`.

`hunyuan.md` is written by hand; a test holds its tables to the figures.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from argument import factor_for
from argument_measure import Measured
from hunyuan_draw import draw_mask, draw_phase
from hunyuan_measure import WEIGHTS, measure, part_of, source

import vae_core

DOCS = Path(__file__).resolve().parent
NUMBERS = DOCS / "hunyuan.json"
LEAST_FACTORS = {"phase": 2, "mask": 32}
"""So that what is small can be seen, if something else in the picture is clipped."""


def add_view(measured: Measured, name: str, least_factor: int) -> None:
    """Put beside the numbers which sample frame is shown, that in which `name` is farthest from the
    authors', and by what factor differences from theirs are magnified.
    """
    authors, numbers = measured.levels["authors"], measured.numbers
    frame = int(np.argmax(numbers["cases"][name]["authors_frame_level"]))
    others = [one for other, one in measured.levels.items() if other in numbers["cases"]]
    numbers["frame"] = frame
    fit = min(factor_for(one[frame], authors[frame]) for one in others)
    numbers["factor"] = max(fit, least_factor)


def main() -> None:
    """Measure and draw."""
    weights = (WEIGHTS / "diffusion_pytorch_model.safetensors").read_bytes()
    video = source()
    shown, part = measure(video), measure(part_of(video))
    add_view(shown["phase"], "as_is", LEAST_FACTORS["phase"])
    add_view(shown["mask"], "no_mask", LEAST_FACTORS["mask"])
    for name, draw in (("phase", draw_phase), ("mask", draw_mask)):
        picture = draw(shown[name].numbers, shown[name].levels)
        picture.save(DOCS / f"hunyuan_{name}.png", optimize=True)
    numbers = {
        "made_with": {
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "clip": vae_core.sample_clip_path().name,
            "torch": torch.__version__,
            "device": "cpu",
            "dtype": "float32",
        },
        **{name: measured.numbers for name, measured in shown.items()},
        "part": {name: measured.numbers for name, measured in part.items()},
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
