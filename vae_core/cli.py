"""`python -m vae_core`: which command was asked for, with which options, and how does it end?

1. `build_parser` reads the command line; what each command does is in `commands.py`, `roundtrip.py`
   and `dataset_commands.py`.
2. `main` runs it. Exit codes: 0 done; 1 out of memory; 2 bad input, told in one line on stderr;
   130 after Ctrl-C, 128 and its number after another signal that ends programs. None leaves a
   half-written file.

Results go to stdout, progress and complaints to stderr.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch

from .errors import SettingsError, VaeCoreError
from .jobs import arguments, commands, options
from .jobs.dataset_commands import encode_dataset, verify
from .jobs.launch import alone, shared
from .jobs.roundtrip import roundtrip

_SIGPIPE_CODE = 141
_OUT_OF_MEMORY = "not enough memory: use a smaller --tile or --chunk-frames, or a shorter clip."


class _Parser(argparse.ArgumentParser):
    """Complains in one line, by exception, where argparse would print its usage as well."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. See: {self.prog} --help")


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, nargs="?", help=f"VAE file or folder (default: {arguments.TINY})"
    )
    arguments.add_family(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape", type=arguments.shape, required=True, metavar="FRAMESxHEIGHTxWIDTH"
    )
    arguments.add_network(parser, "the family's full-size network; no weights needed")
    arguments.add_settings(parser)
    parser.add_argument(
        "--ranks",
        type=arguments.whole,
        metavar="N",
        help="processes that share the work, see torchrun; the plan is one's (default: one alone)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def _add_encode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", type=Path, help="video, picture, or folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="LATENTS")
    parser.add_argument("--moments", action="store_true", help="store mean and logvar as well")
    arguments.add_form(parser)
    arguments.add_network(parser)
    arguments.add_settings(parser)
    arguments.add_ranks(parser)
    arguments.add_frames(parser)
    arguments.add_sample(parser)


def _add_decode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", type=Path, help="file written by encode, or by ComfyUI")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CLIP")
    parser.add_argument(
        "--fps", type=arguments.rate, help="frames a second (default: the file's, else 8)"
    )
    arguments.add_form(parser)
    arguments.add_network(parser)
    arguments.add_settings(parser)
    arguments.add_ranks(parser)
    arguments.add_video_out(parser)
    parser.add_argument("--audio", type=Path, metavar="CLIP", help="whose sound to carry over")


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
    arguments.add_network(parser)
    arguments.add_settings(parser)
    arguments.add_ranks(parser)
    arguments.add_frames(parser)
    arguments.add_sample(parser)
    arguments.add_video_out(parser)


def _add_encode_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="of clips, with sub-folders")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--latents", action="store_true", help="keep modes in place of moments")
    arguments.add_buckets(parser)
    arguments.add_trainer(parser)
    group = parser.add_argument_group("several processes or machines")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="of a Ray cluster; local starts one (default: one process)"
    )
    group.add_argument(
        "--workers", type=arguments.whole, metavar="N", help="for --ray (default: one a GPU or CPU)"
    )
    arguments.add_network(parser)
    arguments.add_settings(parser)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="written by encode-dataset")
    parser.add_argument(
        "--decode", type=Path, metavar="CLIPS", help="also decode, and compare with these clips"
    )
    arguments.add_network(parser)
    arguments.add_settings(parser)


_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[Any], None]]

_COMMANDS: dict[str, _Command] = {
    "info": ("what a VAE file holds", _add_info, commands.info),
    "plan": ("chunks, tiles and memory for a shape", _add_plan, commands.plan),
    "encode": ("video to latents", _add_encode, shared(commands.encode)),
    "decode": ("latents to video", _add_decode, shared(commands.decode)),
    "roundtrip": ("encode, decode and report", _add_roundtrip, shared(roundtrip)),
    "encode-dataset": ("a folder of clips to latents", _add_encode_dataset, alone(encode_dataset)),
    "verify": ("whether such a folder is whole", _add_verify, verify),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `args.run` is the command's function."""
    parser = _Parser(prog="python -m vae_core", description="Exact, memory-bounded video VAEs.")
    parser.add_argument("--version", action="version", version=f"vae_core {options.version()}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (summary, add, run) in _COMMANDS.items():
        command = subparsers.add_parser(name, help=summary, description=summary)
        add(command)
        command.set_defaults(run=run)
    return parser


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


# What ends a program from outside: a system that shuts down, a terminal that is closed (SIGHUP on
# POSIX, SIGBREAK on Windows). Each system knows some of them.
_ENDINGS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
]


@contextmanager
def _termination_as_exception() -> Generator[None]:
    """Let signals that end the program unwind the stack, so that temporary files go; main thread
    only. One that is ignored, as under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in _ENDINGS}
    taken = {one: how for one, how in before.items() if how not in (signal.SIG_IGN, None)}
    for one in taken:
        signal.signal(one, _terminate)
    try:
        yield
    finally:
        for one, how in taken.items():
            signal.signal(one, how)


def _complain(sentence: str, code: int) -> int:
    options.tell(sys.stderr, f"error: {' '.join(sentence.split())}")
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
    except BrokenPipeError:
        raise
    except SystemExit as end:  # --help, --version, a termination signal
        return int(end.code or 0)
    except VaeCoreError as error:
        return _complain(str(error), 2)
    except OSError as error:  # a file or folder that the system refuses
        where = "" if error.filename is None else f"{error.filename}: "
        return _complain(f"{where}{error.strerror or error}.", 2)
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
