"""What goes into a VAE and comes out of it: how many colours, channels, pixels and frames?

Read from the programs that a network stands for, so that no family's numbers are written down here.
n latent frames are frames(n-1)+1 sample frames, whatever the family.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...vae_core import VideoVAE
from ...vae_core.program.steps import SOURCE


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a VAE.

    colours_in, colours_out: of the pictures that it encodes, and of those that it decodes to; 4
        where it knows how opaque a pixel is.
    channels: of its latents. px, frames: pixels along a side of a latent element, and sample frames
        for each latent frame after the first.
    scoped: whether results depend on the frames that statistics are taken over.
    """

    colours_in: int
    colours_out: int
    channels: int
    px: int
    frames: int
    scoped: bool

    def sample_frames(self, latent_frames: int) -> int:
        """Of so many latent frames."""
        return max(self.frames * (latent_frames - 1) + 1, 0)

    def latent_frames(self, sample_frames: int) -> int:
        """That whole groups of sample frames make, as the host counts: what is over is dropped."""
        return max((sample_frames + self.frames - 1) // self.frames, 0)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, ...]:
        """[1, c, n, rows, columns] of the latents that decode to a clip of at least that size."""
        sides = (-(-side // self.px) for side in (height, width))
        return (1, self.channels, 1 - (1 - frames) // self.frames, *sides)


def ends_of(vae: VideoVAE) -> Ends:
    """The ends of a VAE as its network now is."""
    encoder, decoder = vae.encoder, vae.decoder
    latents = decoder.stores[SOURCE]
    return Ends(
        colours_in=encoder.stores[SOURCE].channels,
        colours_out=decoder.stores[decoder.sink].channels,
        channels=latents.channels,
        px=latents.px,
        frames=latents.frames,
        scoped=encoder.has_statistics or decoder.has_statistics,
    )
