"""The host's pictures beside what a network takes and gives, for tests of nodes."""

from __future__ import annotations

from torch import Tensor


def seen(image: Tensor) -> Tensor:
    """An IMAGE [t, h, w, c] as the network sees it: [1, c, t, h, w] in [-1, 1]."""
    return (image * 2.0 - 1.0).permute(3, 0, 1, 2).unsqueeze(0)


def shown(video: Tensor) -> Tensor:
    """[b, c, t, h, w] in about [-1, 1] as the host's pictures [b * t, h, w, c]."""
    return ((video.movedim(1, -1) + 1.0) / 2.0).clamp(0.0, 1.0).flatten(0, 1)


def distance(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the range."""
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / (wanted.max() - wanted.min()))
