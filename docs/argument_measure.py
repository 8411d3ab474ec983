"""How far do tiles, statistics and caches move the pixels of one clip?

1. `shipped` reads the small VAE and a cut of the clip that come with the repository.
2. `measure_tiles` decodes one set of latents untiled, in exact tiles and in blended tiles, and
   compares each with the untiled result.
3. `measure_scopes` encodes and decodes with statistics over chunks and over the whole clip.
4. `measure_caches` encodes and decodes chunk by chunk with the causal cache, then again with the
   cache dropped, the cuts being the same.

Levels are pixels on a scale of 0 to 255, not rounded, so that small differences can be seen. It
draws nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import vae_core
from vae_core import NormScope, Settings, Tiling, VideoVAE
from vae_core.media.video import Selection, read_video

Levels = npt.NDArray[np.float32]
"""Sample frames [t, h, w, 3], 0 to 255, clipped, not rounded."""

TILE_PX = 96
OVERLAPS_PX = (0, 16, 32)
SHIFT_BLOCK_PX = 16
WHOLE = Settings(tiling="off")
PIECE = Settings(tiling="off", layout="diffusers")
"""For a part of a clip taken as a clip of its own: an even count of frames has no first one."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of the clip: sample frames [start, stop), rows and columns [start, stop) in pixels."""

    frames: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """The part of uint8 `frames` [t, h, w, 3], as a video [1, 3, t, h, w] in [-1, 1]."""
        t, h, w = (slice(*side) for side in (self.frames, self.rows, self.columns))
        video = torch.from_numpy(frames[t, h, w].copy()).permute(3, 0, 1, 2)[None]
        return video.float() / 127.5 - 1


TILES_CUT = Cut(frames=(8, 17), rows=(0, 272), columns=(80, 368))
TIME_CUT = Cut(frames=(0, 33), rows=(56, 184), columns=(128, 320))


@dataclass(frozen=True, slots=True)
class Measured:
    """numbers: by name, ready for JSON. levels: sample frames by name."""

    numbers: dict[str, Any]
    levels: dict[str, Levels]


def shipped(cut: Cut) -> tuple[VideoVAE, Tensor]:
    """The small VAE in float32, and `cut` of the clip."""
    vae = vae_core.load(vae_core.tiny_vae_path(), dtype=torch.float32)
    return vae, cut.of(
        read_video(vae_core.sample_clip_path(), Selection(max_frames=cut.frames[1])).frames
    )


def levels(video: Tensor) -> Levels:
    """[1, 3, t, h, w] in about [-1, 1] as levels [t, h, w, 3]."""
    return ((video[0].permute(1, 2, 3, 0).clamp(-1, 1) + 1) * 127.5).numpy()


def psnr_db(a: Levels, b: Levels) -> float | None:
    """Against 255, over all values together; None where they are identical."""
    square = float(np.square(a.astype(np.float64) - b).mean())
    return 10 * float(np.log10(255**2 / square)) if square else None


def share_of_range(result: Tensor, reference: Tensor) -> float:
    """The largest absolute difference as a share of the reference's range, without clipping."""
    reach = reference.max() - reference.min()
    return ((result - reference).abs().max() / reach).item()


def shift_level(a: Levels, b: Levels) -> float:
    """The largest mean difference of any block of 16x16 pixels, over all frames and colours."""
    side = SHIFT_BLOCK_PX
    apart = (a - b).mean(axis=(0, 3), dtype=np.float64)  # [h, w]
    rows, columns = (size // side for size in apart.shape)
    blocks = apart[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return float(np.abs(blocks.mean(axis=(1, 3))).max())


def seam_ratio(a: Levels, b: Levels, borders_px: Sequence[int]) -> float | None:
    """How much the difference of two clips jumps across the columns where tiles meet, relative to
    its step between any two neighbouring columns; 1 where the borders cannot be seen.
    """
    steps = np.abs(np.diff(a.astype(np.float64) - b, axis=2)).mean(axis=(0, 1, 3))  # [w - 1]
    at = [border - 1 for border in borders_px]
    elsewhere = float(np.delete(steps, at).mean())
    return float(steps[at].mean()) / elsewhere if elsewhere else None


def tile_settings() -> dict[str, Settings]:
    """The ways to tile that are compared, by name."""
    blends = {
        f"blend_{px}": Settings(tiling="blend", tile_px=TILE_PX, overlap_px=px)
        for px in OVERLAPS_PX
    }
    return {"exact": Settings(tile_px=TILE_PX), **blends}


@dataclass(frozen=True, slots=True)
class _Whole:
    """The untiled run. latents [1, c, n, h/8, w/8], pixels [1, 3, t, h, w], its levels."""

    latents: Tensor
    pixels: Tensor
    levels: Levels


def _tile_case(vae: VideoVAE, video: Tensor, whole: _Whole, settings: Settings) -> Measured:
    """One way to tile, beside the untiled one."""
    pixels = vae.decode(whole.latents, settings)
    ours = levels(pixels)
    theirs = whole.levels
    borders = range(TILE_PX, video.shape[4], TILE_PX)
    overlap_px = settings.overlap_px[0] if settings.tiling is Tiling.BLEND else None
    numbers = {
        "overlap_px": overlap_px,
        "psnr_db": psnr_db(ours, theirs),
        "largest_level": float(np.abs(ours - theirs).max()),
        "share_of_range": share_of_range(pixels, whole.pixels),
        "shift_level": shift_level(ours, theirs),
        "seam_ratio": seam_ratio(ours, theirs, borders) if overlap_px == 0 else None,
        "source_psnr_db": psnr_db(ours, levels(video)),
        "latents_share_of_range": share_of_range(vae.encode(video, settings).mode(), whole.latents),
    }
    return Measured(numbers, {"decoded": ours})


def measure_tiles(vae: VideoVAE, video: Tensor) -> Measured:
    """Untiled, exact and blended decoding of the same latents, and encoding of the same video."""
    latents = vae.encode(video, WHOLE).mode()
    pixels = vae.decode(latents, WHOLE)
    whole = _Whole(latents, pixels, levels(pixels))
    cases = {
        name: _tile_case(vae, video, whole, settings) for name, settings in tile_settings().items()
    }
    numbers = {
        "tile_px": TILE_PX,
        "size": list(video.shape[2:]),
        "untiled": {"source_psnr_db": psnr_db(whole.levels, levels(video))},
        "cases": {name: case.numbers for name, case in cases.items()},
    }
    shown = {name: case.levels["decoded"] for name, case in cases.items()}
    return Measured(numbers, {"untiled": whole.levels, **shown})


def measure_scopes(vae: VideoVAE, video: Tensor) -> Measured:
    """A round trip with statistics over chunks of frames, and one with statistics over the clip."""
    source = levels(video)
    shown, latents = {}, {}
    for scope in NormScope:
        settings = Settings(tiling="off", norm_scope=scope)
        latents[scope] = vae.encode(video, settings).mode()
        shown[scope.value] = levels(vae.decode(latents[scope], settings))
    chunk, clip = shown["chunk"], shown["clip"]
    numbers = {
        "size": list(video.shape[2:]),
        "chunk_frames": WHOLE.chunk_frames,
        "source_psnr_db": {name: psnr_db(one, source) for name, one in shown.items()},
        "apart_psnr_db": psnr_db(chunk, clip),
        "apart_largest_level": float(np.abs(chunk - clip).max()),
        "latents_share_of_range": share_of_range(latents[NormScope.CHUNK], latents[NormScope.CLIP]),
    }
    return Measured(numbers, {"source": source, **shown})


def encode_pieces(vae: VideoVAE, video: Tensor, stops: Sequence[int]) -> Tensor:
    """Latents of `video` cut before each of `stops`, every piece encoded with no history."""
    starts = (0, *stops[:-1])
    pieces = [video[:, :, a:b] for a, b in zip(starts, stops, strict=True)]
    return torch.cat([vae.encode(piece, PIECE).mode() for piece in pieces], dim=2)


def decode_pieces(vae: VideoVAE, latents: Tensor, stops: Sequence[int]) -> Tensor:
    """The video of `latents` cut before each of `stops`, every piece decoded with no history."""
    starts = (0, *stops[:-1])
    pieces = [latents[:, :, a:b] for a, b in zip(starts, stops, strict=True)]
    return torch.cat([vae.decode(piece, PIECE) for piece in pieces], dim=2)


def _flicker(result: Levels, source: Levels, boundaries: Sequence[int]) -> dict[str, float]:
    """Mean error of the change from one sample frame to the next, at the boundaries of chunks and
    elsewhere, in levels.
    """
    wrong = np.abs(np.diff(result.astype(np.float64) - source, axis=0)).mean(axis=(1, 2, 3))
    at = [boundary - 1 for boundary in boundaries]
    return {"boundary": float(wrong[at].mean()), "elsewhere": float(np.delete(wrong, at).mean())}


def _cache_numbers(result: Levels, source: Levels, boundaries: Sequence[int]) -> dict[str, Any]:
    """How near `result` is to `source`, all together, frame by frame and across boundaries."""
    frames = range(len(source))
    frame_db = [psnr_db(result[t : t + 1], source[t : t + 1]) for t in frames]
    return {
        "source_psnr_db": psnr_db(result, source),
        "frame_psnr_db": frame_db,
        "flicker_level": _flicker(result, source, boundaries),
    }


def _beside_kept(
    case: dict[str, Any], kept: dict[str, Any], kept_psnr_db: float | None, at: Sequence[int]
) -> dict[str, Any]:
    """What dropping changed: the PSNR from the run that kept its cache, and for each sample frame
    how many dB nearer to the source it is (negative: farther), those that begin a chunk apart.
    """
    pairs = zip(case["frame_psnr_db"], kept["frame_psnr_db"], strict=True)
    gain_db = [(one or 0.0) - (other or 0.0) for one, other in pairs]
    return {
        "kept_psnr_db": kept_psnr_db,
        "frame_gain_db": gain_db,
        "boundary_gain_db": [gain_db[frame] for frame in at],
    }


def measure_caches(vae: VideoVAE, video: Tensor, kept: Levels) -> Measured:
    """Round trips that drop the causal cache, beside `kept`, the one that keeps it.

    `encode`: dropped at every chunk of the encoder. `both`: of the decoder too. `once`: sample
    frame 0 encoded alone, its cache lost, the rest with caches.
    """
    chunks = vae.plan_encode(video.shape, WHOLE).chunks
    stops = [chunk.source.stop for chunk in chunks]
    latent_stops = [chunk.target.stop for chunk in chunks]
    dropped = encode_pieces(vae, video, stops)
    once = encode_pieces(vae, video, (1, video.shape[2]))
    source = levels(video)
    shown = {
        "kept": kept,
        "once": levels(vae.decode(once, WHOLE)),
        "encode": levels(vae.decode(dropped, WHOLE)),
        "both": levels(decode_pieces(vae, dropped, latent_stops)),
    }
    cases = {name: _cache_numbers(one, source, stops[:-1]) for name, one in shown.items()}
    for name, one in shown.items():
        cases[name] |= _beside_kept(cases[name], cases["kept"], psnr_db(one, kept), stops[:-1])
    numbers = {"size": list(video.shape[2:]), "boundaries": stops[:-1], "cases": cases}
    return Measured(numbers, {"source": source, **shown})
