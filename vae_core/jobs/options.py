"""What do the options of the command line mean: which VAE, settings, clip and progress display?

One function an option group, shared by the commands. Options arrive as the parser's namespace,
whose fields are listed in `cli.py`. Bad ones are raised as a `VaeCoreError`.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, TypeVar

import torch
from tqdm import tqdm

import vae_core

from ..errors import SettingsError
from ..families.conventions import (
    KIJAI_FACTOR,
    Convention,
    Form,
    scaling_factor,
)
from ..families.family import BY_NAME, COGVIDEOX, WAN, Scale
from ..families.latent_statistics import WAN_2_1, latent_statistics
from ..media.files import check_output
from ..media.video import Resize, Selection
from ..media.video_writing import VIDEO_SUFFIXES, VideoOptions, check_options
from ..posterior import Posterior
from ..settings import Given, Progress, Settings
from ..vae import VideoVAE

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

ResultType = TypeVar("ResultType")

_CHOICES = (
    "tiling",
    "norm_scope",
    "layout",
    "size_fit",
    "frame_fit",
    "blend_order",
    "placement",
    "reference",
    "overlap_px",
    "budget_bytes",
)


def version() -> str:
    """vae_core's own."""
    return vae_core.__version__


def say(text: str) -> None:
    """Write to stdout, with a line's end."""
    tell(sys.stdout, text)


def tell(stream: TextIO, text: str) -> None:
    """Write to a stream, with a line's end; what its encoding cannot hold, such as a file's name,
    as escapes. Raises `BrokenPipeError` where nobody reads any more.
    """
    line = text if text.endswith("\n") else f"{text}\n"
    encoding = stream.encoding or "utf-8"
    plain = line.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(plain)
        stream.flush()
    except OSError as error:
        if error.errno == errno.EINVAL:  # how Windows says it
            raise BrokenPipeError(error.errno, error.strerror) from error
        raise


def json_text(value: object) -> str:
    """`value` as JSON for a file or for stdout."""
    return json.dumps(value, indent=2) + "\n"


def device_name(name: str) -> str:
    """PyTorch's name of a device; `auto` is a GPU where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def vae_path(path: Path | None, family: str | None) -> Path:
    """`path`, or where the family's VAE that ships is; CogVideoX's where no family is named.

    Raises `SettingsError` where none of that family ships.
    """
    if path is not None:
        return path
    meant = BY_NAME[family] if family else COGVIDEOX
    if meant.published.shipped is None:
        raise SettingsError(f"no VAE of {meant.title} ships with this; name a file.")
    return vae_core.ASSETS / meant.published.shipped


def load(path: Path | None, family: str | None, dtype: torch.dtype | None, device: str) -> VideoVAE:
    """The VAE in `path`, or the one that ships; a dtype of None keeps the file's own.

    Raises `SettingsError` where it is of another family than the one named.
    """
    found = vae_path(path, family)
    vae = vae_core.load(found, dtype=dtype, device=device_name(device))
    if family not in (None, vae.family.name):
        raise SettingsError(
            f"{found} is a VAE of {vae.family.title}, and --family says {family}. Leave it out, or"
            " name another file."
        )
    return vae


def load_for(args: Namespace) -> VideoVAE:
    """The VAE that the options name, in the dtype and on the device that they name."""
    return load(args.vae, args.family, DTYPES[args.dtype], args.device)


def vae_name(vae: VideoVAE) -> str:
    """What to call the VAE in reports: the name of its file or folder."""
    return vae.loaded.source.name if vae.loaded else "a live module"


def settings_of(args: Namespace) -> Settings:
    """The settings that the options spell out. Raises `SettingsError`."""
    if getattr(args, "seed", None) is not None and not args.sample:
        raise SettingsError("--seed is for --sample; without it the posterior's mode is taken.")
    chosen = {name: getattr(args, name) for name in _CHOICES if getattr(args, name) is not None}
    group = getattr(args, "group", None) or getattr(args, "ranks", None)
    if getattr(args, "group", None) is not None:
        chosen |= {"parallel_result": Given.ALL, "parallel_timeout_s": args.rank_timeout}
    return Settings(args.chunk_frames, tile_px=args.tile, parallel=group, **chosen)


def word(choice: Enum | str) -> str:
    """The word for a setting that is one of a few."""
    return str(choice.value) if isinstance(choice, Enum) else choice


def video_options(args: Namespace, path: Path | None) -> VideoOptions:
    """How to write a video to `path`, checked before anything runs; no path, nothing to check."""
    options = VideoOptions(codec=args.codec, crf=args.crf, quality=args.quality)
    if path is not None:
        check_output(path, VIDEO_SUFFIXES)
        check_options(path, options)
    return options


def selection_of(args: Namespace) -> Selection:
    """Which frames of the clip are wanted. Raises `VideoError`."""
    return Selection(
        skip_frames=args.skip_frames,
        max_frames=args.max_frames,
        stride=args.stride,
        fps=args.resample,
        start_seconds=args.start,
        stop_seconds=args.stop,
    )


def resize_of(args: Namespace) -> Resize | None:
    """The size that frames are brought to. Raises `VideoError`."""
    if args.size is None:
        return None
    height_px, width_px = args.size
    return Resize(height_px, width_px, args.framing)


@contextmanager
def _progress(label: str, quiet: bool) -> Generator[Callable[[Progress], None]]:
    """A progress display on stderr, in operations; none where stderr is no terminal."""
    show_bar: Any = tqdm  # its stubs are partly untyped
    bar = show_bar(desc=label, unit="FLOP", unit_scale=True, disable=quiet or None, leave=False)

    def show(progress: Progress) -> None:
        bar.total = progress.total_operations
        bar.update(progress.done_operations - bar.n)

    try:
        yield show
    finally:
        bar.close()


def timed(
    work: Callable[[Settings], ResultType], label: str, settings: Settings, quiet: bool
) -> tuple[ResultType, float]:
    """What `work` returns, and how many seconds it took."""
    with _progress(label, quiet) as show:
        start = time.perf_counter()
        result = work(replace(settings, on_progress=show))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result, time.perf_counter() - start


def form_of(args: Namespace, vae: VideoVAE) -> Form | None:
    """How latents lie in the file: None where the options do not say. Raises `VaeCoreError`."""
    if args.convention is None and args.scale is None:
        return None
    convention = Convention(args.convention or Convention.CORE)
    if convention is Convention.KIJAI and vae.family not in (COGVIDEOX, WAN):
        raise SettingsError(
            f"how kijai's latents of {vae.family.title} lie is not known here. Leave out"
            " --convention; where they are times a factor or normalised, say so by --scale."
        )
    if vae.family.scale is Scale.CHANNELS:
        return _normalised(args, convention, vae)
    if args.scale is None:
        return Form(convention, KIJAI_FACTOR if convention is Convention.KIJAI else 1.0)
    if convention is Convention.KIJAI:
        raise SettingsError(f"kijai's latents are always times {KIJAI_FACTOR}; leave out --scale.")
    asked = None if args.scale == "config" else args.scale
    factor = scaling_factor(asked, vae.scaling_factor)
    return Form(convention, factor, told=args.convention is not None)


def _normalised(args: Namespace, convention: Convention, vae: VideoVAE) -> Form:
    """How latents of a family lie that are normalised by channel, in core's order of dimensions."""
    told = args.convention is not None
    if convention is Convention.KIJAI:
        if args.scale is not None:
            raise SettingsError(
                "kijai's latents of Wan 2.1 are always normalised by wan2.1; leave out --scale."
            )
        return Form(statistics=WAN_2_1)
    if args.scale is None:
        return Form(told=told)
    return Form(statistics=latent_statistics(args.scale, vae.latent_statistics), told=told)


def latents_of(args: Namespace, posterior: Posterior) -> torch.Tensor:
    """The posterior's mode, or a sample whose seed means the same on every device."""
    if not args.sample:
        return posterior.mode()
    return posterior.sample(torch.Generator().manual_seed(args.seed or 0))
