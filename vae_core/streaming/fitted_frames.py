"""How do a clip's frames come out at the size that the network takes?

They are padded by replication or cropped as they are read, chunk by chunk: no padded copy of the
clip is made. What is done to which side is `geometry.fitting`'s to say.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry.fitting import Fitted
from ..geometry.region import Interval


def fitted_frames(fitted: Fitted, video: Tensor, frames: Interval) -> Tensor:
    """The sample frames [frames.start, frames.stop) of `video` [b, c, t, h, w], at the network's
    size.
    """
    own, network = fitted.source, fitted.network
    x = video[:, :, frames.start : min(frames.stop, own.t)]
    if frames.stop > own.t:
        x = torch.cat([x, _last_frames(video, frames.stop - max(own.t, frames.start))], dim=2)
    x = x[:, :, :, : network.h, : network.w]
    for dim, size in ((3, network.h), (4, network.w)):
        if x.shape[dim] < size:
            x = x.index_select(dim, torch.arange(size, device=x.device).clamp(max=x.shape[dim] - 1))
    return x


def _last_frames(video: Tensor, count: int) -> Tensor:
    last = video[:, :, -1:]
    return last.expand(-1, -1, count, -1, -1)
