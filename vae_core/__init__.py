"""An exact, memory-bounded video VAE: the public names.

    vae = vae_core.load("vae/")
    posterior = vae.encode(video, Settings(chunk_frames=8, tile_px=256))
    video = vae.decode(posterior.mode(), trim=posterior.fitted.source)

Tiles, chunks and where activations live change speed and memory, never the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .accelerate import accelerate, restore
from .errors import (
    BudgetError,
    DiskError,
    InputError,
    LoadError,
    LoweringError,
    ParallelError,
    ResultError,
    SettingsError,
    VaeCoreError,
    VideoError,
)
from .families.conventions import (
    Convention,
    from_kijai,
    latents_of,
    scaled,
    scaling_factor,
    to_kijai,
    unscaled,
)
from .geometry.region import Extent
from .posterior import Posterior
from .settings import (
    BlendOrder,
    Fit,
    Layout,
    NormScope,
    Placement,
    Progress,
    Reference,
    Settings,
    Tiling,
)
from .vae import VideoVAE, check_dtype, checked_device, from_module

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"

ASSETS = Path(__file__).resolve().parent.parent / "assets"
"""What ships with the repository."""


def load(
    path: str | Path, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> VideoVAE:
    """The VAE in a file or folder, of CogVideoX or of Wan 2.1 and Qwen-Image: a diffusers folder,
    or one file with diffusers' or the authors' keys, which may hold a whole checkpoint.

    dtype: to compute in, by default the file's own. device: where the weights go and the work is
    done. Raises `LoadError` with what the file looks like, where it is something else, and
    `SettingsError` for a dtype or a device that there is not.
    """
    from .families.loading import load_module  # diffusers is imported only where a VAE is built

    check_dtype(dtype)
    loaded = load_module(path, dtype=dtype, device=checked_device(device))
    return from_module(loaded.module, loaded=loaded)


def tiny_vae_path() -> Path:
    """The folder of the small trained CogVideoX VAE that ships with the repository, for trying out
    and for tests.
    """
    return ASSETS / "tiny_vae"


def tiny_wan_vae_path() -> Path:
    """The file of the small VAE of Wan 2.1's structure that ships with the repository."""
    return ASSETS / "tiny_wan_vae" / "tiny_wan_vae.safetensors"


def sample_clip_path() -> Path:
    """The clip that ships with the repository."""
    return ASSETS / "clips" / "big_buck_bunny.mp4"


__all__ = [
    "BlendOrder",
    "BudgetError",
    "Convention",
    "DiskError",
    "Extent",
    "Fit",
    "InputError",
    "Layout",
    "LoadError",
    "LoweringError",
    "NormScope",
    "ParallelError",
    "Placement",
    "Posterior",
    "Progress",
    "Reference",
    "ResultError",
    "Settings",
    "SettingsError",
    "Tiling",
    "VaeCoreError",
    "VideoError",
    "VideoVAE",
    "__version__",
    "accelerate",
    "from_kijai",
    "from_module",
    "latents_of",
    "load",
    "restore",
    "sample_clip_path",
    "scaled",
    "scaling_factor",
    "tiny_vae_path",
    "tiny_wan_vae_path",
    "to_kijai",
    "unscaled",
]
