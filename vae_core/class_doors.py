"""What does each class of diffusers have of its own around the network, that a stand-in must keep?

1. `KINDS` names the classes that `accelerate` takes, each with what its methods do beside running
   the parts: how many frames they push through together, and how they treat other counts of frames.
2. `kind_of` tells which of them a module is.

Which network a class holds, and whether its authors clamp, is the family's business.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from .families.cogvideox_keys import RATIOS
from .settings import Fit, Layout, Settings

DROP_IN = Settings(layout=Layout.DIFFUSERS, size_fit=Fit.ERROR)
"""What `accelerate` takes unless told otherwise: the class's own frame counts, and nothing padded,
since the class's return types could not tell of it.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One class of diffusers.

    module: where it is. name: of the class.
    encoding, decoding: settings as they are meant for a live module of it, given those that the
        caller chose.
    bare: whether `_decode` and `tiled_decode` give the video itself, in no type of diffusers'.
    """

    module: str
    name: str
    encoding: Callable[[nn.Module, Settings], Settings]
    decoding: Callable[[nn.Module, Settings], Settings]
    bare: bool = False

    @property
    def type(self) -> type[nn.Module]:
        """The class itself, imported now."""
        return getattr(importlib.import_module(f"{_AUTOENCODERS}.{self.module}"), self.name)


_AUTOENCODERS = "diffusers.models.autoencoders"


def _in_sample_frames(module: nn.Module, settings: Settings) -> Settings:
    """CogVideoX's encode cuts chunks of its own length, which matters to the result."""
    frames = cast("Any", module).num_sample_frames_batch_size
    return replace(settings, chunk_frames=frames) if settings == DROP_IN else settings


def _in_latent_frames(module: nn.Module, settings: Settings) -> Settings:
    """CogVideoX's decode does so in latent frames."""
    frames = RATIOS.frames * cast("Any", module).num_latent_frames_batch_size
    return replace(settings, chunk_frames=frames) if settings == DROP_IN else settings


def _whole_cells(_: nn.Module, settings: Settings) -> Settings:
    """Wan's encode leaves out the frames behind the last 4k+1; of a layout it knows nothing else,
    and its chunks do not matter.
    """
    own = settings.layout is Layout.DIFFUSERS
    return replace(settings, layout=Layout.ALIGNED, frame_fit=Fit.CROP) if own else settings


def _no_other_frames(_: nn.Module, settings: Settings) -> Settings:
    """HunyuanVideo's encode is for 4k+1 frames and no others; of a layout it knows nothing else.
    What 1.0's class cuts up in time goes through whole.
    """
    own = settings.layout is Layout.DIFFUSERS
    return replace(settings, layout=Layout.ALIGNED, frame_fit=Fit.ERROR) if own else settings


KINDS = (
    Kind(
        "autoencoder_kl_cogvideox", "AutoencoderKLCogVideoX", _in_sample_frames, _in_latent_frames
    ),
    Kind("autoencoder_kl_wan", "AutoencoderKLWan", _whole_cells, _whole_cells),
    Kind("autoencoder_kl_qwenimage", "AutoencoderKLQwenImage", _whole_cells, _whole_cells),
    Kind(
        "autoencoder_kl_hunyuanvideo15",
        "AutoencoderKLHunyuanVideo15",
        _no_other_frames,
        _no_other_frames,
        bare=True,
    ),
    Kind(
        "autoencoder_kl_hunyuan_video",
        "AutoencoderKLHunyuanVideo",
        _no_other_frames,
        _no_other_frames,
    ),
)


def kind_of(module: object) -> Kind | None:
    """The kind that a module is of, or is derived from; None where it is none of them."""
    for kind in KINDS:
        if any(base.__name__ == kind.name for base in type(module).__mro__) and isinstance(
            module, kind.type
        ):
            return kind
    return None
