"""What do the options mean that several commands share: how are they spelt, and what is allowed?

One function a group of options; each adds its group to a command's parser. What the values come to
is worked out in `options.py`.
"""

from __future__ import annotations

import argparse
import math
import re
from enum import Enum
from fractions import Fraction
from pathlib import Path

from ..datasets.trainers import FORMATS
from ..families.conventions import Convention
from ..families.family import FAMILIES
from ..media.framing import Framing
from ..media.video_writing import QUALITIES
from ..settings import BlendOrder, Fit, Layout, NormScope, Placement, Reference, Settings, Tiling
from . import options

Options = argparse.ArgumentParser | argparse._ArgumentGroup  # pyright: ignore[reportPrivateUsage]

TINY = "the family's tiny VAE that ships"
_USUAL = Settings()
_CHOICES: dict[str, tuple[type[Enum], str]] = {
    "--tiling": (Tiling, "exact or blended tiles, or whole pictures"),
    "--blend-order": (BlendOrder, "how blended tiles are put together"),
    "--placement": (Placement, "where activations live"),
    "--norm-scope": (NormScope, "what statistics are taken over"),
    "--layout": (Layout, "where chunks begin; for decode, that of the latents"),
    "--size-fit": (Fit, "how to get multiples of 8"),
    "--frame-fit": (Fit, "how to get 4k+1 frames, 8k+1 for LTX, 6k+1 for Mochi"),
    "--reference": (
        Reference,
        "whose result, where they differ: HunyuanVideo's, and Mochi's latents",
    ),
}


_LARGEST = 2**31 - 1
"""Of a number that is counted with; nothing has more frames or pixels."""

_RATES = (Fraction(1, 65535), Fraction(1_000_000))
_LONGEST_SECONDS = 1e9


def whole(text: str) -> int:
    """A whole number, as libraries below hold it."""
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text):
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a whole number")
    if abs(int(text)) > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is more than {_LARGEST}, the most there can be")
    return int(text)


def _short(text: str) -> str:
    """What came, for a sentence."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def seed(text: str) -> int:
    """A whole number that PyTorch's generators take."""
    if re.fullmatch(r"[+-]?[0-9]{1,20}", text) and -(2**63) <= int(text) < 2**64:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{_short(text)} is no seed; it must be at least -2^63 and less than 2^64"
    )


def _sides(text: str) -> list[int] | None:
    """`9x480x720`: the numbers; None where it is written otherwise."""
    return list(map(whole, text.split("x"))) if re.fullmatch(r"[0-9]+(x[0-9]+)*", text) else None


def tile(text: str) -> int | tuple[int, int] | None:
    """`256`, `128x192` (height x width), or `auto`."""
    if text == "auto":
        return None
    sides = _sides(text)
    if sides is None or len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{_short(text)} is no tile; write 256, 128x192 or auto")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def shape(text: str) -> tuple[int, int, int]:
    """`81x768x1360`: sample frames x height x width."""
    sides = _sides(text)
    if sides is None or len(sides) != 3:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is no shape; write sample frames x height x width, such as 81x768x1360"
        )
    frames, height, width = sides
    return frames, height, width


def picture(text: str) -> tuple[int, int]:
    """`480x720`: height x width."""
    sides = _sides(text)
    if sides is None or len(sides) != 2:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is no size; write height x width, 480x720"
        )
    return sides[0], sides[1]


def seconds(text: str) -> float:
    """`2.5`, or `1:02.5` in minutes and seconds."""
    minutes, _, rest = text.rpartition(":")
    try:
        found = 60 * whole(minutes or "0") + float(rest)
    except (ValueError, argparse.ArgumentTypeError):
        found = math.nan
    if not abs(found) <= _LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"{_short(text)} is no time; write 2.5 or 1:02.5")
    return found


def size(text: str) -> int:
    """`6GiB`, `800MiB`, `1.5G` or a number of bytes."""
    pattern = r"([0-9]{1,15}\.?[0-9]{0,15}) *([KMG]?)(i?B)?"
    found = re.fullmatch(pattern, text.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{_short(text)} is no size; write 6GiB, 800MiB or bytes")
    unit = 1024 ** " KMG".index(found[2].upper() or " ")
    return int(float(found[1]) * unit)


def rate(text: str) -> Fraction:
    """`24`, `23.976` or `24000/1001`."""
    # Checked first: a fraction of 1e9999999 takes for ever.
    plain = re.fullmatch(r"[0-9]{0,9}\.?[0-9]{0,12}(e[+-]?[0-9]{1,2}|/[0-9]{1,9})?", text.lower())
    try:
        fps = Fraction(text) if plain else Fraction(0)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not _RATES[0] <= fps <= _RATES[1]:
        raise argparse.ArgumentTypeError(
            f"{_short(text)} is no frame rate; write 24 or 24000/1001, from 1/65535 to 1000000"
        )
    return fps


def add_family(parser: Options, usual: str = TINY) -> None:
    """Whose VAE is meant."""
    parser.add_argument(
        "--family",
        choices=[family.name for family in FAMILIES],
        help=f"whose: without a file, {usual} (default: cogvideox, or the file's)",
    )


def add_network(parser: argparse.ArgumentParser, usual: str = TINY) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--vae", type=Path, metavar="FILE", help=f"file or diffusers folder (default: {usual})"
    )
    add_family(group, usual)
    group.add_argument(
        "--dtype", choices=options.DTYPES, default="float32", help="(default: float32)"
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default: auto)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is computed; exact tiles never change the result")
    group.add_argument(
        "--chunk-frames",
        type=whole,
        default=_USUAL.chunk_frames,
        metavar="N",
        help="sample frames pushed through together, a multiple of 4 (default: %(default)s)",
    )
    group.add_argument(
        "--tile",
        type=tile,
        default=_USUAL.tile_px,
        metavar="PX",
        help="largest tile: 256, 128x192 (height x width), or auto (default: auto)",
    )
    group.add_argument(
        "--overlap",
        type=tile,
        dest="overlap_px",
        metavar="PX",
        help="pixels that blended tiles share (default: 64)",
    )
    group.add_argument(
        "--budget",
        type=size,
        dest="budget_bytes",
        metavar="SIZE",
        help="bound on device memory beside the weights, such as 6GiB or 800MiB (default: none)",
    )
    for flag, (kind, about) in _CHOICES.items():
        values = [member.value for member in kind]
        default = options.word(getattr(_USUAL, flag.removeprefix("--").replace("-", "_")))
        group.add_argument(flag, choices=values, help=f"{about} (default: {default})")
    parser.add_argument("--quiet", action="store_true", help="no progress display")


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """For processes that torchrun has started to share the work."""
    parser.add_argument(
        "--rank-timeout",
        type=float,
        default=_USUAL.parallel_timeout_s,
        metavar="SECONDS",
        help="under torchrun: how long to wait for another process (default: %(default)g)",
    )


def add_frames(parser: argparse.ArgumentParser) -> None:
    """Which frames of a clip, and at which size."""
    group = parser.add_argument_group("frames; chosen in this order: window, rate, number")
    group.add_argument(
        "--start", type=seconds, default=0.0, metavar="SECONDS", help="where to begin (default: 0)"
    )
    group.add_argument("--stop", type=seconds, metavar="SECONDS", help="where to end")
    group.add_argument(
        "--resample", type=rate, metavar="FPS", help="to so many a second (default: as they come)"
    )
    group.add_argument("--skip-frames", type=whole, default=0, metavar="N", help="left out first")
    group.add_argument("--stride", type=whole, default=1, metavar="N", help="take each Nth")
    group.add_argument("--max-frames", type=whole, metavar="N", help="taken at most")
    group.add_argument(
        "--size", type=picture, metavar="HxW", help="height x width to bring them to"
    )
    group.add_argument(
        "--framing",
        choices=[one.value for one in Framing],
        default=Framing.COVER.value,
        help="how, where proportions differ (default: %(default)s)",
    )


def add_buckets(parser: argparse.ArgumentParser) -> None:
    """What size clips are brought to, and which of their frames are taken."""
    group = parser.add_argument_group("sizes; see datasets/buckets.py for the policy")
    group.add_argument(
        "--bucket",
        type=shape,
        action="append",
        metavar="FRAMESxHEIGHTxWIDTH",
        help="a size that clips are brought to; may be given again (default: 49x480x720; 81x480x832"
        " for Wan)",
    )
    group.add_argument(
        "--frames",
        choices=("first", "spread"),
        default="first",
        help="of a longer clip: its first ones, or some spread over it (default: first)",
    )
    group.add_argument(
        "--resample", type=rate, metavar="FPS", help="clips to so many frames a second"
    )


def add_trainer(parser: argparse.ArgumentParser) -> None:
    """For whom a folder of latents is written."""
    group = parser.add_argument_group("who will read it")
    group.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="our own, in safetensors, or files that a trainer loads (default: %(default)s)",
    )
    group.add_argument(
        "--text-encoder",
        type=Path,
        metavar="FOLDER",
        help="of a CogVideoX model, for cogvideox-factory: encodes captions",
    )


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Mode or sample."""
    group = parser.add_argument_group("what is taken of the posterior")
    group.add_argument(
        "--sample", action="store_true", help="draw from the posterior instead of taking its mode"
    )
    group.add_argument("--seed", type=seed, metavar="N", help="for --sample (default: 0)")


def add_form(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how latents lie in the file (default: unscaled)")
    group.add_argument(
        "--convention",
        choices=[one.value for one in Convention],
        help="whose: core, or kijai's wrappers ([b, t, c, h, w] times 0.7 for CogVideoX, normalised"
        " for Wan)",
    )
    group.add_argument(
        "--scale",
        metavar="FACTOR",
        help="as a diffusion model has them: for CogVideoX and HunyuanVideo 1.5 times a factor, a"
        " number or a model's (2b, 5b, 1.5, hunyuanvideo-1.5); for Wan normalised by channel, as"
        " wan2.1 or qwen-image; or as config, for what the VAE's config.json says",
    )


def add_video_out(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("video written")
    group.add_argument(
        "--codec",
        help="h264, h265, vp9, av1, prores, ffv1 or FFmpeg's name (default: h264, in .webm vp9)",
    )
    group.add_argument("--crf", type=whole, default=18, help="smaller is better (default: 18)")
    group.add_argument("--quality", choices=QUALITIES, help="in place of --crf, for every codec")
