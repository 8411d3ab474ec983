"""By which mean and deviation of each channel does a diffusion model normalise latents?

Wan's models see (latents - mean) / deviation. The numbers belong to the model: they come from
config.json, or from a model's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from ..errors import InputError, LoadError


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Mean and standard deviation of each latent channel, by which a diffusion model's latents are
    normalised: (latents - mean) / std.

    Invariant: as many means as deviations, all finite, every deviation above 0. Raises
    `InputError` for others.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = len(self.mean) == len(self.std) > 0
        if not fits or not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
            raise InputError(
                "latents are normalised by a mean and a standard deviation above 0 for each"
                f" channel; got {list(self.mean)} and {list(self.std)}."
            )

    @classmethod
    def of_config(cls, config: object, channels: int) -> LatentStatistics | None:
        """Those that a config.json, or a module's own, gives as `latents_mean` and `latents_std`;
        None where there is no mapping, or it has neither.

        Raises `LoadError` where they are not numbers for `channels` channels.
        """
        if not isinstance(config, Mapping):
            return None
        values = cast("Mapping[str, Any]", config)
        said = [values.get(name) for name in ("latents_mean", "latents_std")]
        if said == [None, None]:
            return None
        try:
            mean, std = (tuple(map(float, cast("Any", one))) for one in said)
            found = cls(mean, std)
        except (TypeError, ValueError, InputError) as error:
            raise LoadError(
                f"config.json: latents_mean or latents_std is wrong: {error}"
            ) from error
        if len(mean) != channels:
            raise LoadError(
                f"config.json gives latents_mean for {len(mean)} channels; these latents have"
                f" {channels}."
            )
        return found

    @classmethod
    def of_module(cls, module: nn.Module, channels: int) -> LatentStatistics | None:
        """Those that a live module has as tensors beside its parts, as LTX's in diffusers do, or in
        its config; None where it has none.
        """
        return cls.beside(module) or cls.of_config(getattr(module, "config", None), channels)

    @classmethod
    def beside(cls, module: nn.Module) -> LatentStatistics | None:
        """Those that a live module has as tensors beside its parts; None where it has none, or they
        have no values.
        """
        own = dict(module.named_buffers(recurse=False))
        found = [own[name] for name in ("latents_mean", "latents_std") if name in own]
        if len(found) < 2 or any(one.is_meta for one in found):
            return None
        mean, std = (tuple(map(float, one)) for one in found)
        return cls(mean, std)

    def normalised(self, latents: Tensor) -> Tensor:
        """Unscaled latents [b, c, t, h, w] as a diffusion model sees them, in their dtype."""
        mean, std = self._like(latents)
        return (latents - mean) / std

    def undone(self, latents: Tensor) -> Tensor:
        """`normalised` undone, to rounding."""
        mean, std = self._like(latents)
        return latents * std + mean

    def _like(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        if latents.ndim != 5 or latents.shape[1] != len(self.mean):
            raise InputError(
                f"these statistics are of latents [b, {len(self.mean)}, t, h, w]; got"
                f" {list(latents.shape)}, which belong to another model."
            )
        mean, std = (
            latents.new_tensor(values).view(1, -1, 1, 1, 1) for values in (self.mean, self.std)
        )
        return mean, std


WAN_2_1 = LatentStatistics(
    mean=(
        *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
        *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
    ),
    std=(
        *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
        *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916),
    ),
)
"""`latents_mean` and `latents_std` in vae/config.json of Wan 2.1's models and of Qwen-Image.

By these kijai's ComfyUI-WanVideoWrapper normalises inside its VAE (its wanvideo/wan_video_vae.py,
commit 721cd65, lines 525-562 and 606-616), so that its LATENT holds normalised [b, c, t, h, w].
"""

WAN_2_2 = LatentStatistics(
    mean=(
        *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
        *(-0.1382, 0.0542, 0.2813, 0.0891, 0.157, -0.0098, 0.0375, -0.1825),
        *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
        *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.123),
        *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.052, 0.3748),
        *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
    ),
    std=(
        *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.499, 0.4818, 0.5013),
        *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
        *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
        *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
        *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
        *(0.3971, 1.06, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
    ),
)
"""The same of Wan 2.2's TI2V 5B. (Its 14B models have Wan 2.1's VAE.)"""

MOCHI = LatentStatistics(
    mean=(
        *(-0.06730895953510081, -0.038011381506090416, -0.07477820912866141),
        *(-0.05565264470995561, 0.012767231469026969, -0.04703542746246419),
        *(0.043896967884726704, -0.09346305707025976, -0.09918314763016893),
        *(-0.008729793427399178, -0.011931556316503654, -0.0321993391887285),
    ),
    std=(
        *(0.9263795028493863, 0.9248894543193766, 0.9393059390890617),
        *(0.959253732819592, 0.8244560132752793, 0.917259975397747),
        *(0.9294154431013696, 1.3720942357788521, 0.881393668867029),
        *(0.9168315692124348, 0.9185249279345552, 0.9274757570805041),
    ),
)
"""The same of Mochi 1."""

LATENT_STATISTICS = {
    "wan2.1": WAN_2_1,
    "qwen-image": WAN_2_1,
    "wan2.2-5b": WAN_2_2,
    "mochi": MOCHI,
}
"""By model."""


def latent_statistics(asked: str, configured: LatentStatistics | None) -> LatentStatistics:
    """The ones that `asked` means: a model's name, or "config" for what config.json gave.

    configured: `VideoVAE.latent_statistics`. Raises `InputError` where neither says any.
    """
    found = configured if asked == "config" else LATENT_STATISTICS.get(asked.lower())
    if found is None:
        what = "config.json gives none" if asked == "config" else f"{asked!r} is none of these"
        raise InputError(
            "these latents are normalised by a mean and a deviation for each channel, which weights"
            f" do not show; {what}. Name the model, {' or '.join(LATENT_STATISTICS)}, or take a VAE"
            " with a config.json that has latents_mean and latents_std, and say config."
        )
    return found
