"""What does a library allocate beside the input and the result of a convolution?

Its memory is no tensor of ours, but it comes from the same device. For each class of convolutions
there is a `Workspace`, a line through what was seen; where nothing was, a careful default:

1. `NOTHING`: kernels that read and write channels last as they lie.
2. `CONTIGUOUS`: others transform the input and the result, and so hold each of them twice.
3. `unrolled`: where there is no kernel at all, every tap gets a copy of the input (im2col).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from .arrays import Whole, np


@dataclass(frozen=True, slots=True)
class ConvClass:
    """What a library chooses a kernel by, sizes of pictures apart.

    taps: in (frames, rows, columns). stride: in height and width alike. stride_t: in time.
    """

    in_channels: int
    out_channels: int
    taps: tuple[int, int, int]
    stride: int = 1
    stride_t: int = 1


@dataclass(frozen=True, slots=True)
class Workspace:
    """base_bytes + per_input * input + per_output * output, input and output in bytes."""

    base_bytes: int = 0
    per_input: float = 0.0
    per_output: float = 0.0

    def bytes(self, input_bytes: Whole, output_bytes: Whole) -> Whole:
        """Bytes for one convolution of this class."""
        more = self.per_input * input_bytes + self.per_output * output_bytes
        if isinstance(more, float):
            return self.base_bytes + ceil(more)
        return self.base_bytes + np.ceil(more).astype(np.int64)


NOTHING = Workspace()
CONTIGUOUS = Workspace(per_input=1.0, per_output=1.0)
PRODUCTS = Workspace(33 * 2**20)
"""What libraries keep for products of matrices, once and for good: up to 32 MiB, and the rest."""


def unrolled(kind: ConvClass) -> Workspace:
    """The workspace of im2col."""
    frames, rows, columns = kind.taps
    return Workspace(per_input=float(frames * rows * columns))


@dataclass(frozen=True, slots=True)
class Workspaces:
    """The workspaces of a device for one dtype.

    known: by class, where it was measured. default: for every other class.
    attention: beside one, whose arithmetic is products of matrices.
    """

    default: Workspace = CONTIGUOUS
    known: Mapping[ConvClass, Workspace] = field(
        default_factory=dict[ConvClass, Workspace], hash=False
    )
    attention: Workspace = PRODUCTS

    def bytes(self, kind: ConvClass, input_bytes: Whole, output_bytes: Whole) -> Whole:
        """Bytes that the library is allowed for one convolution."""
        return self.known.get(kind, self.default).bytes(input_bytes, output_bytes)


NO_WORKSPACES = Workspaces(NOTHING, attention=NOTHING)
"""For a processor, and for what plays a device in a count."""
