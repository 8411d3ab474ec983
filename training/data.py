"""Which pixels does the tiny autoencoder learn from?

Steps:

1. Read every animated WebP of a folder, in sorted order, as uint8 frames.
2. Shrink each clip by an area average to every scale in ``SCALES``, so that a small crop shows
   anything from a close-up to a whole scene.
3. Store each clip and scale as one ``.npy`` file [t, h, w, c] in a cache folder, once.
4. Serve random crops [b, c, t, h, w] in [-1, 1], at random mirrored, bounced in time and with
   permuted colour channels.

Every ``HOLD_OUT``-th animated clip is kept out of the training set.  The module does not download
anything, and what it caches is never shipped.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

SCALES = (1.0, 0.5)
HOLD_OUT = 20


@dataclass(frozen=True, slots=True)
class CropShape:
    """Size of one training batch: clips, frames, height and width."""

    batch: int
    frames: int
    height: int
    width: int


def read_clip(path: Path) -> np.ndarray:
    """Return the frames of an animated picture as uint8 [t, h, w, c]."""
    with Image.open(path) as image:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    return np.stack(frames)


def shrink(clip: np.ndarray, scale: float) -> np.ndarray:
    """Return the clip [t, h, w, c] shrunk in space by an area average."""
    if scale == 1.0:
        return clip
    size = (round(clip.shape[2] * scale), round(clip.shape[1] * scale))
    small = [
        np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX)) for frame in clip
    ]
    return np.stack(small)


def build_cache(source: Path, cache: Path) -> None:
    """Decode every clip of ``source`` into ``cache``, unless that has been done."""
    index = cache / "index.json"
    if index.exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    entries = []
    paths = sorted(source.glob("*.webp"))
    for number, path in enumerate(paths):
        clip = read_clip(path)
        for scale in SCALES:
            small = shrink(clip, scale)
            name = f"{hashlib.sha1(path.name.encode()).hexdigest()[:12]}_{scale}.npy"
            np.save(cache / name, small)
            entries.append({"file": name, "clip": path.name, "held_out": number % HOLD_OUT == 0})
    index.write_text(json.dumps(entries, indent=1))


def load_clips(cache: Path, held_out: bool = False) -> list[np.ndarray]:
    """Return the memory-mapped clips [t, h, w, c] of one side of the split."""
    entries = json.loads((cache / "index.json").read_text())
    chosen = [entry["file"] for entry in entries if entry["held_out"] == held_out]
    return [np.load(cache / name, mmap_mode="r") for name in chosen]


def to_signal(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 [..., t, h, w, c] into float32 [..., c, t, h, w] in [-1, 1]."""
    signal = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(127.5).sub_(1.0)
    return signal.movedim(-1, -4).contiguous()


class CropSampler:
    """Random crops of the training clips, reproducible from one generator."""

    def __init__(self, clips: list[np.ndarray], seed: int) -> None:
        self.clips = clips
        self.permuted = 0.0
        self.random = np.random.default_rng(seed)
        # Longer and larger clips hold more material; the root keeps them from taking over.
        weight = np.sqrt([float(np.prod(clip.shape[:3])) for clip in clips])
        self.weight = weight / weight.sum()

    def batch(self, shape: CropShape) -> torch.Tensor:
        """Return one batch [b, c, t, h, w] in [-1, 1]."""
        crops = [self._crop(shape) for _ in range(shape.batch)]
        return to_signal(np.stack(crops))

    def _crop(self, shape: CropShape) -> np.ndarray:
        clip = self.clips[self.random.choice(len(self.clips), p=self.weight)]
        while clip.shape[1] < shape.height or clip.shape[2] < shape.width:
            clip = self.clips[self.random.choice(len(self.clips), p=self.weight)]
        top = self.random.integers(clip.shape[1] - shape.height + 1)
        left = self.random.integers(clip.shape[2] - shape.width + 1)
        crop = clip[self._times(len(clip), shape.frames)]
        crop = crop[:, top : top + shape.height, left : left + shape.width]
        if self.random.random() < 0.5:
            crop = crop[:, :, ::-1]
        # The clips hold mostly blue and orange.  Permuted channels make every hue equally
        # frequent; without them the network spends no latent on green against purple.
        if self.random.random() < self.permuted:
            crop = crop[..., self.random.permutation(3)]
        return crop

    def _times(self, length: int, frames: int) -> np.ndarray:
        """Return frame numbers: a random run, bounced off the ends, in a random direction."""
        period = max(2 * length - 2, 1)
        times = (self.random.integers(period) + np.arange(frames)) % period
        return np.where(times < length, times, period - times)
