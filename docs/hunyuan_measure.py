"""What do core's phase, its statistics and its missing mask do to the pictures of one clip?

1. `source` is a part of the shipped clip at half its size; `shipped` the small HunyuanVideo
   weights that have learned that clip and nothing else (`training/hunyuan_small.py`).
2. `measure_phase` encodes as the authors do, as core does with its encoder put in phase, and as
   core does; all three are decoded as the authors do, so that only the encoder differs.
3. `measure_mask` decodes the authors' latents as they do, without the mask and with nothing else
   changed, and as core does. The second is diffusers' network, for no setting asks for it.

Whatever a setting asks for is made by this engine in tiles and chunks, and `whole_share_of_range`
says how far that is from diffusers' modules on the whole clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from argument_measure import Levels, Measured, levels, psnr_db, share_of_range
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders import autoencoder_kl_hunyuan_video as theirs
from torch import Tensor

import vae_core
from vae_core import Settings, VideoVAE
from vae_core.media.video import Selection, frames_to_tensor, read_video

WEIGHTS = Path(__file__).resolve().parent / "hunyuan_small"
SKIPPED, FRAMES, SHRINK = 16, 33, 2
PART = ((0, 13), (32, 96), (96, 160))
"""Sample frames, rows and columns [start, stop) of the part that a test measures again."""
CUT = {"chunk_frames": 8, "tile_px": 64}
AUTHORS, IN_PHASE, AS_IS = (
    Settings(reference=name, **CUT) for name in ("official", "core", "core-as-is")
)
DELAYS = tuple(range(-2, 7))
"""By how many sample frames a picture may be late, below 0 early."""


def source() -> Tensor:
    """A run of sample frames of the clip: [1, 3, t, h, w] in [-1, 1]."""
    selection = Selection(skip_frames=SKIPPED, max_frames=FRAMES)
    video = frames_to_tensor(read_video(vae_core.sample_clip_path(), selection).frames)
    return F.avg_pool3d(video, (1, SHRINK, SHRINK))


def part_of(video: Tensor) -> Tensor:
    """So little of it that measuring it again costs seconds."""
    frames, rows, columns = (slice(*side) for side in PART)
    return video[:, :, frames, rows, columns]


def shipped() -> tuple[VideoVAE, AutoencoderKLHunyuanVideo]:
    """The small weights in float32: in this engine, and in diffusers' class."""
    module = AutoencoderKLHunyuanVideo.from_pretrained(WEIGHTS, low_cpu_mem_usage=False).float()
    return vae_core.load(WEIGHTS, dtype=torch.float32), module.eval().requires_grad_(False)


@contextmanager
def no_mask() -> Iterator[None]:
    """Lets the attention of diffusers' class see all frames."""
    with mock.patch.object(theirs, "prepare_causal_attention_mask", return_value=None):
        yield


def whole_decode(module: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """diffusers' decoder on the whole clip, which its `decode` would cut and blend."""
    return module.decoder(module.post_quant_conv(latents))


def frame_db(result: Levels, wanted: Levels) -> list[float | None]:
    """The PSNR of each sample frame."""
    return [psnr_db(one, other) for one, other in zip(result, wanted, strict=True)]


def delay_db(result: Levels, wanted: Levels) -> list[float]:
    """For each of `DELAYS`: the PSNR from the source so many sample frames before, over those that
    have one for every delay.
    """
    times = np.arange(max(DELAYS), len(result) + min(DELAYS))
    return [psnr_db(result[times], wanted[times - delay]) or 0.0 for delay in DELAYS]


def frame_level(result: Levels, wanted: Levels) -> list[float]:
    """The mean difference of each sample frame, of 255."""
    return np.abs(result - wanted).mean(axis=(1, 2, 3)).astype(float).tolist()


def _beside(result: Levels, given: Levels, authors: Levels) -> dict[str, Any]:
    """One way, beside the source and beside the authors' way."""
    return {
        "source_psnr_db": psnr_db(result, given),
        "authors_psnr_db": psnr_db(result, authors),
        "source_frame_db": frame_db(result, given),
        "authors_frame_level": frame_level(result, authors),
    }


def measure_phase(vae: VideoVAE, video: Tensor) -> Measured:
    """Three encoders, one decoder."""
    ways = {"authors": AUTHORS, "in_phase": IN_PHASE, "as_is": AS_IS}
    latents = {name: vae.encode(video, settings).mode() for name, settings in ways.items()}
    shown = {name: levels(vae.decode(one, AUTHORS)) for name, one in latents.items()}
    given = levels(video)
    cases = {name: _beside(one, given, shown["authors"]) for name, one in shown.items()}
    for name, case in cases.items():
        case["delay_db"] = delay_db(shown[name], given)
        case["late"] = DELAYS[int(np.argmax(case["delay_db"]))]
        case["latents_share_of_range"] = share_of_range(latents[name], latents["authors"])
    numbers = {"size": list(video.shape[2:]), "delays": list(DELAYS), "cases": cases}
    return Measured(numbers, {"source": given, **shown})


def measure_mask(
    vae: VideoVAE, module: AutoencoderKLHunyuanVideo, video: Tensor, authors: Levels
) -> Measured:
    """One set of latents, three decoders; `authors` is what theirs gives."""
    latents, given = vae.encode(video, AUTHORS).mode(), levels(video)
    whole = whole_decode(module, latents)
    with no_mask():
        unmasked = levels(whole_decode(module, latents))
    shown = {
        "authors": authors, "no_mask": unmasked, "core": levels(vae.decode(latents, AS_IS)),
    }  # fmt: skip
    numbers = {
        "size": list(video.shape[2:]),
        "whole_share_of_range": float(np.abs(levels(whole) - authors).max()) / 255,
        "cases": {name: _beside(one, given, authors) for name, one in shown.items()},
    }
    return Measured(numbers, {"source": given, **shown})


def measure(video: Tensor) -> dict[str, Measured]:
    """Both, by name."""
    vae, module = shipped()
    with torch.no_grad():
        phase = measure_phase(vae, video)
        mask = measure_mask(vae, module, video, phase.levels["authors"])
    return {"phase": phase, "mask": mask}
