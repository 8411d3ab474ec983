"""By how much does a network compress, and which counts of frames and pixels go together?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ratios:
    """What one latent element stands for.

    px: sample pixels along a side. frames: sample frames, a clip's first latent frame apart, which
    stands for one: n latent frames <-> frames * (n - 1) + 1 sample frames.
    """

    px: int
    frames: int

    def latent_frames(self, sample_frames: int) -> int:
        """n for frames * (n - 1) + 1 sample frames; the last one counts where it is begun."""
        return -(-(sample_frames - 1) // self.frames) + 1

    def sample_frames(self, latent_frames: int) -> int:
        """Sample frames of n latent frames."""
        return self.frames * (latent_frames - 1) + 1
