"""The node that decodes latents."""

from __future__ import annotations

from typing import Any

from .bridge.widgets import CATEGORY, RUN_WIDGETS
from .encode import ExactVAEEncodeTiled


class ExactVAEDecodeFramewise:
    """Decode latents a few frames at a time, with the untiled network's pixels."""

    DESCRIPTION = (
        "Decodes latents a few frames at a time, each picture in tiles, with the same pixels as the"
        " untiled network: no seams, no flicker, 4(n-1)+1 frames for n latent frames (8(n-1)+1"
        " with LTX, 6(n-1)+1 with Mochi). Takes any VAE that Exact VAE Loader knows."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("images", "report")
    OUTPUT_TOOLTIPS = (
        "The frames; padding that Exact VAE Encode added is taken off again.",
        "What was planned, used and trimmed.",
    )
    FUNCTION = "decode"
    SEARCH_ALIASES = (
        "vae decode",
        "cogvideox decode",
        "wan decode",
        "latent to video",
        "decode tiled",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "samples": (
                    "LATENT",
                    {"tooltip": "Latents of the VAE's model, core's or those of kijai's wrappers."},
                ),
                "vae": ("VAE", {"tooltip": "A VAE that Exact VAE Loader knows, from any loader."}),
                **RUN_WIDGETS,
            },
            "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    VALIDATE_INPUTS = ExactVAEEncodeTiled.VALIDATE_INPUTS

    def decode(self, samples: Any, vae: Any, unique_id: str | None = None, **values: Any) -> Any:
        """IMAGE [b * t, h, w, c] in [0, 1] and report of a LATENT."""
        from .bridge.latents import latents_for
        from .bridge.live import Watch
        from .bridge.origin import own_size
        from .bridge.running import decode_latents, report, settings_of
        from .bridge.vae import exact_vae

        vae = exact_vae(vae)
        settings = settings_of(values, vae)
        latents, notes = latents_for(vae, samples)
        size, told = own_size(samples, latents, vae.ends.ratios)
        watch = Watch("decode", unique_id, values.get("extra_pnginfo"))
        run = decode_latents(vae, latents, settings, size, watch)
        notes = [*notes, *told, *run.notes]
        return (run.images.flatten(0, 1), report(vae, run.plan, run.seconds, notes))
