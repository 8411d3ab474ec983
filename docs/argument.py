"""What is the picture of the argument, and what does its caption say?

    python docs/argument.py

1. Everything is measured on the shipped weights and clip (`argument_measure.py`); on two CPU cores
   that takes a few minutes.
2. The numbers go to `argument.json`, the pictures (`argument_draw.py`) to `argument_tiles.png` and
   `argument_time.png`.
3. `caption` writes `argument.md` from the numbers as JSON holds them and from nothing else;
   `--caption` does that alone, and `--readme` prints the lines for the README.

Nothing here chooses numbers: a run with other weights gives another caption.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from argument_caption import caption, readme_part
from argument_draw import draw_tiles, draw_time
from argument_measure import (
    TILE_PX,
    TILES_CUT,
    TIME_CUT,
    Levels,
    Measured,
    measure_caches,
    measure_scopes,
    measure_tiles,
    shipped,
)
from PIL import Image

import vae_core

DOCS = Path(__file__).resolve().parent
NUMBERS = DOCS / "argument.json"
CAPTION = DOCS / "argument.md"
FACTORS = (64, 32, 16, 8, 4, 2)
WEIGHTS = vae_core.tiny_vae_path() / "diffusion_pytorch_model.safetensors"


def factor_for(a: Levels, b: Levels) -> int:
    """The largest power of two, up to 64, by which the difference of two pictures can be magnified
    so that 99 % of its values stay below white.
    """
    high = float(np.percentile(np.abs(a - b), 99))
    return next((factor for factor in FACTORS if high * factor <= 255), 1)


def detail_corner(blended: Levels, untiled: Levels) -> list[int]:
    """Row and column of that corner of tiles, of one sample frame, around which the difference is
    largest, in pixels.
    """
    apart, reach = np.abs(blended - untiled).mean(axis=2), TILE_PX // 4
    sides = (range(TILE_PX, size - reach, TILE_PX) for size in apart.shape)
    around = {
        (y, x): float(apart[y - reach : y + reach, x - reach : x + reach].mean())
        for y, x in product(*sides)
    }
    return list(max(around, key=around.__getitem__))


def add_tile_view(tiles: Measured) -> None:
    """Put beside the numbers what the picture shows: one factor for every difference in it."""
    apart = [tiles.levels[name][-1] for name in tiles.numbers["cases"]]
    untiled = tiles.levels["untiled"][-1]
    tiles.numbers["frame"] = TILES_CUT.frames[1] - 1
    tiles.numbers["corner_px"] = detail_corner(tiles.levels["blend_0"][-1], untiled)
    tiles.numbers["factor"] = min(factor_for(one, untiled) for one in apart)


def add_scope_view(scopes: Measured) -> None:
    """As `add_tile_view`: the sample frame in which the scopes differ most, and a factor."""
    chunk, clip = scopes.levels["chunk"], scopes.levels["clip"]
    frame = int(np.abs(chunk - clip).mean(axis=(1, 2, 3)).argmax())
    scopes.numbers["frame"] = frame
    scopes.numbers["factor"] = factor_for(chunk[frame], clip[frame])


def add_cache_view(caches: Measured) -> None:
    """As `add_tile_view`: one factor for the whole strip."""
    caches.numbers["factor"] = factor_for(caches.levels["both"], caches.levels["kept"])


def made_with() -> dict[str, str]:
    """What a reader needs to get the same numbers."""
    digest = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    return {
        "weights_sha256": digest,
        "clip": vae_core.sample_clip_path().name,
        "torch": torch.__version__,
        "device": "cpu",
        "dtype": "float32",
    }


def save(picture: Image.Image, name: str) -> None:
    """Write a picture to the folder of this file."""
    picture.save(DOCS / name, optimize=True)


def measure() -> dict[str, Any]:
    """Measure all, draw both pictures, and return the numbers."""
    made = made_with()  # first, in case other weights come in meanwhile
    tiles = measure_tiles(*shipped(TILES_CUT))
    add_tile_view(tiles)
    save(draw_tiles(tiles.numbers, tiles.levels), "argument_tiles.png")
    vae, video = shipped(TIME_CUT)
    scopes = measure_scopes(vae, video)
    caches = measure_caches(vae, video, scopes.levels["chunk"])
    add_scope_view(scopes)
    add_cache_view(caches)
    parts = ((scopes.numbers, scopes.levels), (caches.numbers, caches.levels))
    save(draw_time(*parts), "argument_time.png")
    return {
        "made_with": made,
        "tiles": tiles.numbers,
        "scopes": scopes.numbers,
        "caches": caches.numbers,
    }


def main() -> int:
    """Make everything, or words alone; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--caption", action="store_true", help="from argument.json, no measuring")
    only.add_argument("--readme", action="store_true", help="print the lines for the README")
    options = parser.parse_args()
    if not options.caption and not options.readme:
        NUMBERS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    if options.readme:
        sys.stdout.write(readme_part(numbers))
        return 0
    text = caption(numbers)
    CAPTION.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
