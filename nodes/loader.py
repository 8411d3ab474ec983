"""Nodes that give a VAE: from a file, and from another loader's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .bridge import host
from .bridge.widgets import CATEGORY, CHUNK_SIZE, DEVICES, MEMORY_BUDGET, NORM_SCOPE, REFERENCE
from .encode import ExactVAEEncodeTiled

SHIPPED = {
    "tiny_vae (ships with this pack, for trying out)": "tiny_vae",
    "tiny_wan_vae (ships with this pack, for trying out)": "tiny_wan_vae/tiny_wan_vae.safetensors",
}
"""By the name that a person chooses it by: where it lies among the assets."""

_LIKELY = ("cogvid", "wan", "qwen", "hunyuan", "ltx", "seedvr", "mochi")
"""What the names of the files that can be loaded have in them, those of the first family first."""


def _paths() -> dict[str, Path]:
    assets = Path(__file__).resolve().parent.parent / "assets"
    return {**host.vae_paths(), **{name: assets / place for name, place in SHIPPED.items()}}


def _choices() -> list[str]:
    """All names; those that look right come first, the shipped ones last."""
    return sorted(_paths(), key=lambda name: (_unlikeliness(name), name))


def _unlikeliness(name: str) -> int:
    if name in SHIPPED:
        return len(_LIKELY) + 1
    found = (rank for rank, word in enumerate(_LIKELY) if word in name.lower())
    return next(found, len(_LIKELY))


class ExactVAELoader:
    """Load a video VAE that encodes and decodes exactly in bounded memory."""

    DESCRIPTION = (
        "Loads the VAE of CogVideoX, of Wan 2.1 (2.2's 14B models have it too), of Wan 2.2 5B, of"
        " LTX-2, of HunyuanVideo 1.0 and 1.5, of SeedVR2, of Mochi or of Qwen-Image: a .safetensors"
        " file with diffusers or original names, the original 3d-vae.pt or Wan2.1_VAE.pth, or a"
        " diffusers folder. It works with every node that takes a VAE, core's included, and gives"
        " the untiled network's pixels in any memory."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("VAE",)
    OUTPUT_TOOLTIPS = ("The VAE, for these nodes and for core's.",)
    FUNCTION = "load"
    SEARCH_ALIASES = (
        "cogvideox vae",
        "load vae",
        "video vae",
        "3d causal vae",
        "wan vae",
        "qwen image vae",
        "ltx vae",
        "hunyuanvideo 1.5 vae",
        "seedvr2 vae",
        "mochi vae",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "vae_name": (
                    _choices(),
                    {
                        "tooltip": "Files in models/vae, and what lies in models/CogVideo and"
                        " models/diffusers/*/vae. The last two ship with this pack: small, quick,"
                        " and of no use with a diffusion model."
                    },
                ),
                "dtype": (
                    ["auto", "bf16", "fp16", "fp32"],
                    {
                        "default": "auto",
                        "tooltip": "What to compute in. auto: as ComfyUI was started. bf16 is what"
                        " the model was made with; fp16 is untested with its weights.",
                    },
                ),
            },
            "optional": {"reference": REFERENCE},
        }

    @classmethod
    def IS_CHANGED(cls, vae_name: str, dtype: str, reference: str = "official") -> str:
        """A file that was replaced is loaded again."""
        del dtype, reference
        path = _paths().get(vae_name)
        files = sorted(path.iterdir()) if path and path.is_dir() else [path] if path else []
        stats = [file.stat() for file in files if file.is_file()]
        return f"{vae_name} " + " ".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)

    def load(self, vae_name: str, dtype: str, reference: str = "official") -> tuple[Any]:
        """The VAE called `vae_name`."""
        from ..vae_core import LoadError
        from .bridge.vae import load_vae

        path = _paths().get(vae_name)
        if path is None:
            raise LoadError(
                f"vae_name: there is no {vae_name!r} any more. Choose another, or press R to read"
                " the folders again."
            )
        return (load_vae(path, dtype, reference),)


class ExactVAEApply:
    """Make a VAE from another loader exact."""

    DESCRIPTION = (
        "Takes a VAE that Exact VAE Loader knows, from any loader, WanVideoWrapper's included,"
        " and gives one that runs through the exact engine, with the same weights in memory only"
        " once. For core's own VAE Encode and VAE Decode nodes and all that encode by themselves;"
        " the nodes of this pack take such a VAE as it is."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("VAE",)
    OUTPUT_TOOLTIPS = ("The same VAE, exact in every node.",)
    FUNCTION = "apply"
    SEARCH_ALIASES = ("patch vae", "cogvideox vae", "wan vae", "qwen image vae", "exact vae")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "vae": (
                    "VAE,WANVAE",
                    {"tooltip": "A VAE that Exact VAE Loader knows, whatever loaded it."},
                ),
                "chunk_size": CHUNK_SIZE,
                "norm_scope": NORM_SCOPE,
                "memory_budget": MEMORY_BUDGET,
            },
            "optional": {"reference": REFERENCE, "devices": DEVICES},
        }

    VALIDATE_INPUTS = ExactVAEEncodeTiled.VALIDATE_INPUTS

    def apply(self, vae: Any, **values: Any) -> tuple[Any]:
        """`vae`, with these settings for core's nodes."""
        from .bridge.running import settings_of
        from .bridge.vae import with_settings

        return (with_settings(vae, settings_of(values)),)
