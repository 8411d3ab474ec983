"""What does a LATENT remember of the clip that it was made of, and does that still hold?

1. Encoding that padded writes under `ORIGIN` the clip's own size and a look of the latents: their
   means over a coarse grid.
2. Decoding takes padding off again where the latents have their size still and lie as they did.
3. Nodes in between copy that note to whatever they make. Latents that were flipped, turned or
   reversed are closer to their look turned likewise than to the look itself: their padding lies
   elsewhere now. Of latents that were in a batch only copies of those encoded are the same clip.
   Both are decoded whole, and a note says so; what a sampler changed lies as it did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...vae_core import Extent
from ...vae_core.errors import counted
from ...vae_core.families.conventions import marked
from ...vae_core.geometry.fitting import Fitted
from ...vae_core.geometry.ratios import Ratios

ORIGIN = "exact_video_vae"
"""Key in a LATENT: {"source": [t, h, w] of the clip, "latent": [n, rows, columns] of its own,
"look": [c, <= 4, <= 8, <= 8]}.
"""

_GRID = (4, 8, 8)
_CLOSER = 0.8  # of the distance to the look as it was; what is as far from both was not turned
_SAME = 0.01  # of the look's deviation; half precision rounds less

_TURNED = (
    "these latents were flipped, turned or reversed after they were encoded: what was padded is not"
    " where it was, so that nothing is taken off."
)
_BATCHED = (
    "these latents were batched with others after they were encoded, whose padding is not known, so"
    " that nothing is taken off."
)


def latent_of(samples: Tensor, fitted: Fitted) -> dict[str, Any]:
    """A LATENT of `samples` [1, c, n, h, w] that remembers the clip's own size."""
    source = fitted.source
    if source == fitted.network:
        return marked({"samples": samples})
    origin = {
        "source": [source.t, source.h, source.w],
        "latent": list(samples.shape[2:]),
        "look": _looks(samples)[0],
    }
    return marked({"samples": samples, ORIGIN: origin})


def own_size(
    latent: Mapping[str, Any], samples: Tensor, ratios: Ratios
) -> tuple[Extent | None, list[str]]:
    """(t, h, w) that the clip had before it was padded, and what to tell of it; None where it was
    not padded, or where the latents are another size or lie otherwise since.

    ratios: what an element of the latents stands for in the VAE that decodes them.
    """
    origin = latent.get(ORIGIN)
    if not isinstance(origin, Mapping) or origin.get("latent") != list(samples.shape[2:]):
        return None, []
    n, rows, columns = samples.shape[2:]
    whole = Extent(ratios.sample_frames(n), ratios.px * rows, ratios.px * columns)
    size = Extent(*origin["source"]).at_most(whole)
    if size == whole:
        return None, []
    look = origin.get("look")
    if isinstance(look, Tensor) and (note := _moved(latent, _looks(samples), look)):
        return None, [note]
    left = counted(size.t, "frame")
    return size, [f"Padding taken off: {left} of {size.h}x{size.w} left."]


def _moved(latent: Mapping[str, Any], looks: Tensor, look: Tensor) -> str | None:
    """Why the clip's own size says nothing about these latents; None where it does."""
    if len(looks) > 1 or "batch_index" in latent:
        most = _SAME * float(look.std(correction=0))
        same = all(float((one - look).abs().max()) <= most for one in looks)
        return None if same else _BATCHED
    now = looks[0]
    distance = float((now - look).norm())
    nearest = min(
        float((now - turned).norm()) for turned in _turns(look) if turned.shape == now.shape
    )
    return _TURNED if nearest < _CLOSER * distance else None


def _looks(samples: Tensor) -> Tensor:
    """The means of [b, c, n, h, w] over a coarse grid, the same from every side, in host memory."""
    grid = tuple(min(side, most) for side, most in zip(samples.shape[2:], _GRID, strict=True))
    means = torch.nn.functional.adaptive_avg_pool3d(samples.detach().float(), grid)
    return means.cpu()


def _turns(look: Tensor) -> Iterator[Tensor]:
    """`look` [c, n, h, w] in every other way that it can lie: reversed, flipped, turned."""
    for square in (look, look.transpose(2, 3)):
        for flips in product((False, True), repeat=3):
            dims = [dim for dim, flip in enumerate(flips, start=1) if flip]
            if dims or square is not look:
                yield square.flip(dims)
