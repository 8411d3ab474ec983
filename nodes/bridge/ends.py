"""What goes into a VAE and comes out of it: how many colours, channels, pixels and frames?

Read from the programs that a network stands for, so that no family's numbers are written down here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...vae_core import VideoVAE
from ...vae_core.geometry.ratios import Ratios
from ...vae_core.program.steps import SOURCE


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a VAE.

    colours_in, colours_out: of the pictures that it encodes, and of those that it decodes to; 4
        where it knows how opaque a pixel is.
    channels: of its latents. ratios: what one element of them stands for.
    scale: by which the host multiplies latents as soon as they are encoded.
    """

    colours_in: int
    colours_out: int
    channels: int
    ratios: Ratios
    scale: float = 1.0

    def handed_on(self, latents: Tensor) -> Tensor:
        """Unscaled latents as the host hands them on."""
        return latents if self.scale == 1.0 else latents * self.scale

    def taken(self, latents: Tensor) -> Tensor:
        """Latents as the host has them, unscaled."""
        return latents if self.scale == 1.0 else latents / self.scale

    @property
    def px(self) -> int:
        """Pixels along a side of a latent element."""
        return self.ratios.px

    def sample_frames(self, latent_frames: int) -> int:
        """That so many latent frames decode to; none of none."""
        return max(self.ratios.sample_frames(latent_frames), 0)

    def whole_latent_frames(self, sample_frames: int) -> int:
        """As the host counts: sample frames that make no whole latent frame are dropped."""
        return max((sample_frames - 1) // self.ratios.frames + 1, 0)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """[1, c, n, rows, columns] of the latents that decode to a clip of at least that size."""
        rows, columns = (-(-side // self.px) for side in (height, width))
        return (1, self.channels, self.ratios.latent_frames(frames), rows, columns)


def ends_of(vae: VideoVAE) -> Ends:
    """The ends of a VAE as its network now is."""
    encoder, decoder = vae.encoder, vae.decoder
    return Ends(
        colours_in=encoder.stores[SOURCE].channels,
        colours_out=decoder.stores[decoder.sink].channels,
        channels=decoder.stores[SOURCE].channels,
        ratios=decoder.ratios,
        scale=vae.family.hosted_scale,
    )
