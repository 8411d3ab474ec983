"""The node that turns latents between two packs' conventions."""

from __future__ import annotations

from typing import Any

from .bridge.widgets import CATEGORY

TO_CORE, TO_WRAPPER = "CogVideoXWrapper to core", "core to CogVideoXWrapper"
STAYS_CORE = "core, as it is"
"""For latents of 16 frames, whose shape says nothing: says that they are core's."""
WAN_TO_CORE, WAN_TO_WRAPPER = "WanVideoWrapper to core", "core to WanVideoWrapper"


class ExactVAELatentConvert:
    """Turn latents of kijai's wrappers into core's, and back."""

    DESCRIPTION = (
        "CogVideoXWrapper's latents are [b, t, c, h, w], multiplied by 0.7, and may begin with"
        " filler frames; those of core and of this pack are [b, c, t, h, w] and unscaled. This node"
        " turns one into the other, and says whose they are where 16 latent frames leave that open."
        " WanVideoWrapper's are [b, c, t, h, w], each channel less its mean and over its standard"
        " deviation; core's are as the VAE gives them. Shapes do not tell them apart."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("The same latents in the other convention.",)
    FUNCTION = "convert"
    SEARCH_ALIASES = ("kijai latent", "cogvideoxwrapper latent", "latent scale")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "Latents of CogVideoX, or of Wan 2.1."}),
                "direction": (
                    [TO_CORE, TO_WRAPPER, STAYS_CORE, WAN_TO_CORE, WAN_TO_WRAPPER],
                    {"tooltip": "Whose latents come in, and for whom they are."},
                ),
                "scale": (
                    "FLOAT",
                    {
                        "default": 0.7,
                        "min": 0.01,
                        "max": 100.0,
                        "step": 0.01,
                        "round": 0.00000001,
                        "advanced": True,
                        "tooltip": "The factor on CogVideoXWrapper's latents: 0.7 in all of its own"
                        " nodes.",
                    },
                ),
                "additional_frames": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": 64,
                        "advanced": True,
                        "tooltip": "Latent frames of filler at the start of CogVideoXWrapper's"
                        " latents, which are left out. -1: what the latents say.",
                    },
                ),
            }
        }

    def convert(
        self, samples: Any, direction: str, scale: float, additional_frames: int
    ) -> tuple[Any]:
        """A LATENT in the other convention."""
        from .bridge.images import as_core, for_wrapper, from_wrapper
        from .bridge.latents import for_wan_wrapper, from_wan_wrapper

        if direction == WAN_TO_CORE:
            return (from_wan_wrapper(samples),)
        if direction == WAN_TO_WRAPPER:
            return (for_wan_wrapper(samples),)
        if direction == TO_WRAPPER:
            return (for_wrapper(samples, scale, max(additional_frames, 0)),)
        if direction == STAYS_CORE:
            return (as_core(samples),)
        return (from_wrapper(samples, scale, additional_frames),)
