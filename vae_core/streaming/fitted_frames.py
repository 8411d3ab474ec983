"""Which of a clip's elements does the network read at the size that it takes?

They are cropped by a view, and padded where tiles are read (`running.kernels.extend`): no padded
copy is made of a clip, nor of a chunk. What is done to which side is `geometry.fitting`'s to say.
"""

from __future__ import annotations

from torch import Tensor

from ..geometry.fitting import Fitted
from ..geometry.region import Interval


def fitted_frames(fitted: Fitted, video: Tensor, frames: Interval) -> Tensor:
    """What `video` [b, c, t, h, w] has of the network's frames [frames.start, frames.stop): a view,
    smaller than they are where the last frame, row or column stands for those that are missing.
    """
    start = min(frames.start, fitted.source.t - 1)
    return video[:, :, start : frames.stop, : fitted.network.h, : fitted.network.w]
