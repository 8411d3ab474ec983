"""In what order does a family's network see which crops, and when are its branches switched on?

The shapes are the only thing that a run of one family does not share with a run of another.  The
module draws nothing itself.
"""

from dataclasses import dataclass

from data import CropShape
from optimizer import MatrixOptimizer, OrthogonalMomentum, RotatedAdam

# Beyond every reduction of the sides.
NEVER = float("inf")
# Least reduction of the sides where residual branches are on: (in the encoder, in the decoder).
Finest = tuple[float, float]
NO_BRANCH: Finest = (NEVER, NEVER)
EVERY_BRANCH: Finest = (1.0, 1.0)

Choice = tuple[float, CropShape]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Crops and switches of a run; every share is one of the time budget."""

    # (share at which it ends, where residual branches are on).
    branches: tuple[tuple[float, Finest], ...]
    # Rate of the linear paths while branches are on, as a share of the branches' rate.
    linear_rate: float
    # (share at which the phase ends, [(weight, shape), ...]).
    phases: tuple[tuple[float, list[Choice]], ...]
    # Share of the crops whose colour channels are permuted, before and after ``permuted_until``:
    # first every hue must find its way through the network, then the usual hues count more.
    permuted: tuple[float, float]
    permuted_until: float
    # How weights with two or more dimensions are moved.
    matrices: type[MatrixOptimizer]

    def finest(self, progress: float) -> Finest:
        """Return where branches are on at this moment."""
        return next(finest for end, finest in self.branches if progress < end)

    def choices(self, progress: float) -> list[Choice]:
        """Return the weighted crop shapes of this moment."""
        return next(choices for end, choices in self.phases if progress < end)


# Statistics are taken over the crop here and over the full frame at inference: small crops come
# first for many steps, large crops last.  Only 8k+1 frames appear: that is what the family decodes
# to the length it was given.
COGVIDEOX = Recipe(
    branches=((0.2, NO_BRANCH), (1.01, EVERY_BRANCH)),
    linear_rate=1.0,
    phases=(
        (
            0.2,
            [
                (0.30, CropShape(2, 9, 64, 64)),
                (0.30, CropShape(1, 9, 96, 96)),
                (0.27, CropShape(1, 17, 64, 64)),
                (0.13, CropShape(6, 1, 96, 96)),
            ],
        ),
        (
            0.55,
            [
                (0.50, CropShape(1, 9, 64, 64)),
                (0.12, CropShape(4, 1, 96, 96)),
                (0.23, CropShape(1, 17, 64, 64)),
                (0.15, CropShape(1, 9, 96, 96)),
            ],
        ),
        (
            0.85,
            [
                (0.25, CropShape(2, 9, 64, 64)),
                (0.08, CropShape(4, 1, 128, 128)),
                (0.30, CropShape(1, 17, 64, 64)),
                (0.25, CropShape(1, 9, 96, 96)),
                (0.10, CropShape(1, 17, 96, 96)),
                (0.02, CropShape(1, 33, 64, 64)),
            ],
        ),
        (
            1.01,
            [
                (0.35, CropShape(1, 9, 128, 128)),
                (0.08, CropShape(2, 1, 256, 256)),
                (0.35, CropShape(1, 17, 96, 96)),
                (0.20, CropShape(1, 17, 128, 128)),
                (0.02, CropShape(1, 33, 96, 96)),
            ],
        ),
    ),
    permuted=(0.8, 0.3),
    permuted_until=0.45,
    matrices=OrthogonalMomentum,
)
# No statistic reaches beyond a voxel: crops stay small to the end, and only become longer, because
# what a convolution finds before the crop is zero, and in the middle of a clip it is not.
WAN = Recipe(
    branches=((1.01, EVERY_BRANCH),),
    linear_rate=1.0,
    phases=(
        (
            0.7,
            [
                (0.90, CropShape(1, 17, 64, 64)),
                (0.10, CropShape(6, 1, 64, 64)),
            ],
        ),
        (
            1.01,
            [
                (0.60, CropShape(1, 17, 64, 64)),
                (0.25, CropShape(1, 25, 48, 48)),
                (0.10, CropShape(1, 9, 64, 64)),
                (0.05, CropShape(6, 1, 64, 64)),
            ],
        ),
    ),
    permuted=(0.3, 0.1),
    permuted_until=0.5,
    matrices=RotatedAdam,
)
