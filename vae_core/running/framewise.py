"""How are the statistics of every frame of a store gathered, each frame by itself?

1. The frames of a tile are measured side by side, as if they were clips of one frame.
2. What tiles of the same frames gave is merged (`Framewise`); tiles in space never see the whole of
   a frame, and the phases of an unfolding step make every second or third one.
3. `moments_of` puts the frames in order when a norm asks for them, over the groups that it wants.

What is kept is counted in `planning.sizes`; change both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from ..planning.sizes import MOST_PARTS
from ..program.moments import Moments
from ..program.parts import Runs
from .kernels import measure
from .statistics import Parts, finished


@dataclass(frozen=True, slots=True)
class Framewise:
    """Statistics of the frames of a store, each by itself.

    found: of the frames of each run of them, side by side: [b * frames, ...].
    """

    found: Mapping[range, Moments | Parts]

    def merge(self, other: Framewise) -> Framewise:
        """The statistics of both; of a frame in both, of all of its voxels."""
        found: dict[range, Any] = dict(self.found)
        for frames, more in other.found.items():
            found[frames] = _few(found[frames].merge(more)) if frames in found else more
        return Framewise(found)

    def over(self, groups: int) -> Moments:
        """The moments of every frame over each of `groups` runs of channels; mean and m2 are [b,
        frames, groups].
        """
        merged: dict[int, Moments] = {}
        for frames, found in self.found.items():
            for frame, one in zip(frames, _apart(found, len(frames), groups), strict=True):
                merged[frame] = merged[frame].merge(one) if frame in merged else one
        in_order = [merged[frame] for frame in sorted(merged)]
        means, variances = ([x.mean for x in in_order], [x.variance for x in in_order])
        return Moments(1, torch.stack(means, 1), torch.stack(variances, 1))


Gathered: TypeAlias = "Moments | Parts | Framewise"
"""Statistics of a store, as far as it has been written."""


def measured_by_frame(
    x: Tensor, frames: range, groups: int, shift: Tensor | None = None
) -> Framewise:
    """Statistics of x [b, c, t, h, w], whose frames are those of a store; see `kernels.measure`."""
    clips = x.transpose(1, 2).flatten(0, 1).unsqueeze(2)  # [b * t, c, 1, h, w]
    return Framewise({frames: measure(clips, groups, shift)})


def moments_of(statistics: Gathered, groups: int, runs: Runs | None = None) -> Moments:
    """The moments of a store over each of `groups` runs of its channels, [b, groups], or of each of
    its frames, [b, frames, groups].

    runs: of frames that have them in common, if any have.
    """
    if isinstance(statistics, Framewise):
        found = statistics.over(groups)
    else:
        found = finished(statistics, groups)
    return _in_common(found, runs) if runs else found


def _in_common(each: Moments, runs: Runs) -> Moments:
    """For every frame the moments of all frames of its run. each: [b, frames, groups], of frames
    of one size.
    """
    means: list[Tensor] = []
    variances: list[Tensor] = []
    for run in runs.of(each.mean.shape[1]):
        mean, variance = (x[:, run.start : run.stop] for x in (each.mean, each.variance))
        middle = mean.mean(1, keepdim=True)
        spread = (variance + (mean - middle).square()).mean(1, keepdim=True)
        means.append(middle.expand_as(mean))
        variances.append(spread.expand_as(mean))
    return Moments(1, torch.cat(means, 1), torch.cat(variances, 1))


def _few(statistics: Moments | Parts) -> Moments | Parts:
    """The same, of no more parts than are counted."""
    if isinstance(statistics, Parts) and len(statistics.counts) >= MOST_PARTS:
        return statistics.folded()
    return statistics


def _apart(statistics: Moments | Parts, frames: int, groups: int) -> list[Moments]:
    """The moments of each of so many frames, [b, groups]."""
    if isinstance(statistics, Parts):
        over, count = statistics.over(groups), sum(statistics.counts)
        statistics = Moments(count, over.mean, over.variance * count)
    means, m2s = (
        cast("Tensor", x.unflatten(0, (-1, frames))).unbind(1)
        for x in (statistics.mean, statistics.m2)
    )
    pairs = zip(means, m2s, strict=True)
    return [Moments(statistics.count, mean, m2) for mean, m2 in pairs]
