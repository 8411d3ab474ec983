"""`python -m vae_core`: which command was asked for, with which options, and how does it end?

1. `build_parser` reads the command line; what each command does is in `commands.py` and
   `roundtrip.py`.
2. `main` runs it. Exit codes: 0 done; 1 out of memory; 2 bad input, told in one line on stderr;
   130 after Ctrl-C, 143 after a termination signal. Either signal leaves no half-written file.

Results go to stdout, progress and complaints to stderr.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import Enum
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from .conventions import Convention
from .errors import SettingsError, VaeCoreError
from .jobs import commands, options
from .jobs.roundtrip import roundtrip
from .moments import NormScope
from .settings import BlendOrder, Fit, Layout, Placement, Settings, Tiling

_SIGPIPE_CODE = 141
_TINY = "the tiny VAE that ships"
_USUAL = Settings()
_CHOICES: dict[str, tuple[type[Enum], str]] = {
    "--tiling": (Tiling, "exact or blended tiles, or whole pictures"),
    "--blend-order": (BlendOrder, "how blended tiles are put together"),
    "--placement": (Placement, "where activations live"),
    "--norm-scope": (NormScope, "what statistics are taken over"),
    "--layout": (Layout, "where chunks begin; for decode, that of the latents"),
    "--size-fit": (Fit, "how to get multiples of 8"),
    "--frame-fit": (Fit, "how to get 4k+1 frames"),
}
_OUT_OF_MEMORY = "not enough memory: use a smaller --tile or --chunk-frames, or a shorter clip."


class _Parser(argparse.ArgumentParser):
    """Complains in one line, by exception, where argparse would print its usage as well."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. See: {self.prog} --help")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _tile(text: str) -> int | tuple[int, int] | None:
    """`256`, `128x192` (height x width), or `auto`."""
    if text == "auto":
        return None
    try:
        sides = [int(part) for part in text.split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is no tile; write 256, 128x192 or auto")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _shape(text: str) -> tuple[int, int, int]:
    """`81x768x1360`: sample frames x height x width."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no shape; write sample frames x height x width, such as 81x768x1360"
        )
    frames, height, width = map(int, parts)
    return frames, height, width


def _bytes(text: str) -> int:
    """`6GiB`, `800MiB`, `1.5G` or a number of bytes."""
    found = re.fullmatch(r"([0-9]+\.?[0-9]*) *([KMG]?)(i?B)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 6GiB, 800MiB or bytes")
    unit = 1024 ** " KMG".index(found[2].upper() or " ")
    return int(float(found[1]) * unit)


def _fps(text: str) -> Fraction:
    """`24`, `23.976` or `24000/1001`."""
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if fps <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no frame rate; write 24 or 24000/1001")
    return fps


def _add_network(parser: argparse.ArgumentParser, usual: str = _TINY) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--vae", type=Path, metavar="FILE", help=f"file or diffusers folder (default: {usual})"
    )
    group.add_argument(
        "--dtype", choices=options.DTYPES, default="float32", help="(default: float32)"
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ... (default: auto)")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it is computed; exact tiles never change the result")
    group.add_argument(
        "--chunk-frames",
        type=_whole,
        default=_USUAL.chunk_frames,
        metavar="N",
        help="sample frames pushed through together, a multiple of 4 (default: %(default)s)",
    )
    group.add_argument(
        "--tile",
        type=_tile,
        default=_USUAL.tile_px,
        metavar="PX",
        help="largest tile: 256, 128x192 (height x width), or auto (default: auto)",
    )
    group.add_argument(
        "--overlap",
        type=_tile,
        dest="overlap_px",
        metavar="PX",
        help="pixels that blended tiles share (default: 64)",
    )
    group.add_argument(
        "--budget",
        type=_bytes,
        dest="budget_bytes",
        metavar="SIZE",
        help="bound on device memory beside the weights, such as 6GiB or 800MiB (default: none)",
    )
    for flag, (kind, about) in _CHOICES.items():
        values = [member.value for member in kind]
        default = options.word(getattr(_USUAL, flag.removeprefix("--").replace("-", "_")))
        group.add_argument(flag, choices=values, help=f"{about} (default: {default})")
    parser.add_argument("--quiet", action="store_true", help="no progress display")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frames, sample and encoding")
    group.add_argument("--skip-frames", type=_whole, default=0, metavar="N", help="left out first")
    group.add_argument("--max-frames", type=_whole, metavar="N", help="taken at most")
    group.add_argument(
        "--sample", action="store_true", help="draw from the posterior instead of taking its mode"
    )
    group.add_argument("--seed", type=_whole, metavar="N", help="for --sample (default: 0)")


def _add_form(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how latents lie in the file (default: unscaled)")
    group.add_argument(
        "--convention",
        choices=[one.value for one in Convention],
        help="whose layout: core [b, c, t, h, w], or kijai [b, t, c, h, w] times 0.7",
    )
    group.add_argument(
        "--scale",
        metavar="FACTOR",
        help="times a factor: a number, a model (2b, 5b, 1.5), or config for the VAE's config.json",
    )


def _add_video_out(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("video written")
    group.add_argument("--codec", help="FFmpeg's name of an encoder (default: H.264, in .webm VP9)")
    group.add_argument("--crf", type=_whole, default=18, help="smaller is better (default: 18)")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", help=f"VAE file or folder (default: {_TINY})")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=_shape, required=True, metavar="FRAMESxHEIGHTxWIDTH")
    _add_network(parser, "CogVideoX's full-size network; no weights needed")
    _add_settings(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", type=Path, help="video, picture, or folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="LATENTS")
    parser.add_argument("--moments", action="store_true", help="store mean and logvar as well")
    _add_form(parser)
    _add_network(parser)
    _add_settings(parser)
    _add_selection(parser)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=Path, help="file written by encode, or by ComfyUI")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CLIP")
    parser.add_argument("--fps", type=_fps, help="frames a second (default: the file's, else 8)")
    _add_form(parser)
    _add_network(parser)
    _add_settings(parser)
    _add_video_out(parser)


def _add_roundtrip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", type=Path, nargs="?", help="(default: the clip that ships)")
    parser.add_argument("-o", "--output", type=Path, metavar="CLIP", help="write the result too")
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="contact sheet (default: CLIP_roundtrip.png here)"
    )
    parser.add_argument("--no-sheet", action="store_true")
    parser.add_argument(
        "--json", nargs="?", const=True, metavar="FILE", help="figures to FILE, or to stdout"
    )
    parser.add_argument(
        "--no-compare", action="store_true", help="skip the untiled run that tiling is held against"
    )
    _add_network(parser)
    _add_settings(parser)
    _add_selection(parser)
    _add_video_out(parser)


_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[Any], None]]

_COMMANDS: dict[str, _Command] = {
    "info": ("what a VAE file holds", _add_info, commands.info),
    "plan": ("chunks, tiles and memory for a shape", _add_plan, commands.plan),
    "encode": ("video to latents", _add_encode, commands.encode),
    "decode": ("latents to video", _add_decode, commands.decode),
    "roundtrip": ("encode, decode and report", _add_roundtrip, roundtrip),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.run` is the command's function."""
    parser = _Parser(
        prog="python -m vae_core", description="Exact, memory-bounded CogVideoX video VAE."
    )
    parser.add_argument("--version", action="version", version=f"vae_core {options.version()}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (summary, add, run) in _COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, description=summary)
        add(command)
        command.set_defaults(run=run)
    return parser


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


@contextmanager
def _termination_as_exception() -> Generator[None]:
    """Let SIGTERM unwind the stack, so that temporary files go; main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(sentence.split())}\n")
    return code


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether it is one: PyTorch's CPU allocator has no class of its own for it."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = build_parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as end:  # --help, --version, a termination signal
        return int(end.code or 0)
    except VaeCoreError as error:
        return _complain(str(error), 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _complain(_OUT_OF_MEMORY, 1)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default this process's; the exit code."""
    try:
        with _termination_as_exception():
            return _run(argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; without this, Python would complain when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGPIPE_CODE
