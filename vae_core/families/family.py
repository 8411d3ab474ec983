"""Which families does the engine carry, and which of them does a module belong to?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any

from torch import nn

from ..program.steps import Program
from . import cogvideox, hunyuan, hunyuan15, ltx, mochi, seedvr2, wan
from .latent_statistics import WAN_2_2 as WAN_2_2_STATISTICS


class Scale(Enum):
    """How a diffusion model has the latents: times a `FACTOR`, or normalised by `CHANNELS`."""

    FACTOR = "factor"
    CHANNELS = "channels"


@dataclass(frozen=True, slots=True)
class Published:
    """What there is of a family beside its code.

    kind: the class that holds the full-size network, by its defaults but for `numbers`.
    size: sample frames, height and width of the clips that its models are made for.
    channels: of its latents.
    shipped: the small VAE that comes with this repository, below assets/; None where there is none.
    numbers: what the class has to be told for that network. home: the module that has it.
    """

    kind: str
    size: tuple[int, int, int]
    channels: int
    shipped: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    home: str = "diffusers"

    def network(self) -> nn.Module:
        """The full-size network; of torch's default dtype and device."""
        return getattr(import_module(self.home), self.kind)(**self.numbers)


@dataclass(frozen=True, slots=True)
class Family:
    """Networks with one structure. All that differs from family to family, but for how files hold
    it, is said here.

    name: as files and settings have it. title: as a person reads it.
    owns: whether a module is one of them. lower_encoder, lower_decoder: the programs that such a
        module stands for; they raise `LoweringError` with the path of what the engine cannot run.
    published, scale: see there.
    clamps: whether the authors clamp decoded frames to [-1, 1]; the engine leaves them as they are.
    factor: on latents, where all models that use the VAE have the same. hosted: whether ComfyUI
        multiplies by it as soon as it has encoded, so that its LATENTs are scaled.
    """

    name: str
    title: str
    owns: Callable[[nn.Module], bool]
    lower_encoder: Callable[[nn.Module], Program]
    lower_decoder: Callable[[nn.Module], Program]
    published: Published
    scale: Scale
    clamps: bool = False
    factor: float | None = None
    hosted: bool = False

    @property
    def hosted_scale(self) -> float:
        """What a LATENT of ComfyUI is of unscaled latents."""
        return self.factor if self.hosted and self.factor else 1.0


COGVIDEOX = Family(
    "cogvideox",
    "CogVideoX",
    cogvideox.owns,
    cogvideox.lower_encoder,
    cogvideox.lower_decoder,
    Published("AutoencoderKLCogVideoX", (49, 480, 720), 16, "tiny_vae"),
    Scale.FACTOR,
)
WAN = Family(
    "wan",
    "Wan 2.1 and Qwen-Image",
    wan.owns,
    wan.lower_encoder,
    wan.lower_decoder,
    Published("AutoencoderKLWan", (81, 480, 832), 16, "tiny_wan_vae/tiny_wan_vae.safetensors"),
    Scale.CHANNELS,
    clamps=True,
)

WAN_2_2 = Family(
    "wan22",
    "Wan 2.2 5B",
    wan.owns_2_2,
    wan.lower_encoder,
    wan.lower_decoder,
    Published(
        "AutoencoderKLWan",
        (121, 704, 1280),
        48,
        numbers={
            "base_dim": 160,
            "decoder_base_dim": 256,
            "z_dim": 48,
            "in_channels": 12,
            "out_channels": 12,
            "is_residual": True,
            "patch_size": 2,
            "scale_factor_spatial": 16,
            "latents_mean": WAN_2_2_STATISTICS.mean,
            "latents_std": WAN_2_2_STATISTICS.std,
        },
    ),
    Scale.CHANNELS,
    clamps=True,
)

LTX = Family(
    "ltx",
    "LTX-Video and LTX-2",
    ltx.owns,
    ltx.lower_encoder,
    ltx.lower_decoder,
    Published("AutoencoderKLLTX2Video", (121, 1088, 1920), 128, numbers={"decoder_causal": False}),
    Scale.CHANNELS,
)

HUNYUAN_1_5 = Family(
    "hunyuan15",
    "HunyuanVideo 1.5",
    hunyuan15.owns,
    hunyuan15.lower_encoder,
    hunyuan15.lower_decoder,
    Published("AutoencoderKLHunyuanVideo15", (121, 720, 1280), 32),
    Scale.FACTOR,
    factor=1.03682,
)

HUNYUAN = Family(
    "hunyuan",
    "HunyuanVideo",
    hunyuan.owns,
    hunyuan.lower_encoder,
    hunyuan.lower_decoder,
    Published("AutoencoderKLHunyuanVideo", (129, 720, 1280), 16),
    Scale.FACTOR,
    factor=0.476986,
)

SEEDVR2 = Family(
    "seedvr2",
    "SeedVR2",
    seedvr2.owns,
    seedvr2.lower_encoder,
    seedvr2.lower_decoder,
    Published("SeedVR2VAE", (21, 720, 1280), 16, home=f"{__package__}.seedvr2_network"),
    Scale.FACTOR,
    factor=0.9152,
    hosted=True,
)

MOCHI = Family(
    "mochi",
    "Mochi",
    mochi.owns,
    mochi.lower_encoder,
    mochi.lower_decoder,
    Published("MochiVAE", (85, 480, 848), 12, home=f"{__package__}.mochi_network"),
    Scale.CHANNELS,
)

FAMILIES = (WAN, WAN_2_2, LTX, HUNYUAN_1_5, HUNYUAN, SEEDVR2, MOCHI, COGVIDEOX)
"""The first that owns a module has it: a family whose parts another one has too comes before it."""

BY_NAME = {family.name: family for family in FAMILIES}


def family_of(module: nn.Module) -> Family:
    """The family whose parts a module has; CogVideoX where it is nobody's, whose lowering then says
    what is missing.
    """
    return next((family for family in FAMILIES if family.owns(module)), COGVIDEOX)


def whose_latents(channels: int) -> str:
    """A sentence, after a space, that names the families whose published latents have so many
    channels; nothing where none has.
    """
    *others, last = [f.title for f in FAMILIES if f.published.channels == channels] or [""]
    named = f"{', '.join(others)} or {last}" if others else last
    return f" Latents of {named} have {channels}." if named else ""
