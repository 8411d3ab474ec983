"""The node that shows what a run would take, before it is run."""

from __future__ import annotations

from typing import Any

from .bridge.widgets import CATEGORY, RUN_WIDGETS
from .encode import ExactVAEEncodeTiled


class ExactVAEPlan:
    """See chunks, tiles, memory and work of a run before a long sampling run."""

    DESCRIPTION = (
        "Says how a clip would be encoded or decoded: chunks, tiles, where activations would live,"
        " peak memory and arithmetic. Nothing is computed, so use it before a long sampling run."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("STRING", "FLOAT", "INT", "INT")
    RETURN_NAMES = ("plan", "peak_gib", "tiles", "chunks")
    OUTPUT_TOOLTIPS = (
        "The plan in words.",
        "Projected peak on the device in GiB, weights, input and result apart.",
        "Tiles of all steps and chunks together.",
        "Chunks of time.",
    )
    FUNCTION = "plan"
    OUTPUT_NODE = True
    SEARCH_ALIASES = ("vae memory", "estimate memory", "cogvideox plan", "will it fit")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        sides = {"min": 8, "max": 16384, "step": 8}
        frames = {"default": 49, "min": 1, "max": 100_000, "tooltip": "Video frames of the clip."}
        return {
            "required": {
                "vae": ("VAE", {"tooltip": "A VAE that Exact VAE Loader knows, from any loader."}),
                "operation": (["decode", "encode"], {"tooltip": "What is to be planned."}),
                "width": ("INT", {"default": 720, **sides, "tooltip": "Of the video, in pixels."}),
                "height": ("INT", {"default": 480, **sides, "tooltip": "Of the video, in pixels."}),
                "frames": ("INT", frames),
                **RUN_WIDGETS,
            }
        }

    VALIDATE_INPUTS = ExactVAEEncodeTiled.VALIDATE_INPUTS

    def plan(
        self, vae: Any, operation: str, width: int, height: int, frames: int, **values: Any
    ) -> Any:
        """The plan in words and numbers."""
        from .bridge.running import planned, settings_of
        from .bridge.vae import exact_vae

        vae = exact_vae(vae)
        size = (frames, height, width)
        found = planned(vae, operation, size, settings_of(values, vae))
        text, peak = found.describe(), found.peak_bytes / 2**30
        result = (text, round(peak, 3), found.tile_count(), len(found.chunks))
        return {"ui": {"text": [text]}, "result": result}
