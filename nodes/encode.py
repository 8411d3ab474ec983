"""The node that encodes pictures."""

from __future__ import annotations

from typing import Any

from .bridge.widgets import CATEGORY, FIT_WIDGETS, POSTERIOR, RUN_WIDGETS, SAMPLE_SEED, refusal


class ExactVAEEncodeTiled:
    """Encode a clip in chunks and tiles, with the untiled network's result."""

    DESCRIPTION = (
        "Encodes a clip, or a picture, into latents, chunk by chunk and tile by tile, with the same"
        " result as the untiled network. Takes any VAE that Exact VAE Loader knows."
    )
    CATEGORY = CATEGORY
    RETURN_TYPES = ("LATENT", "STRING")
    RETURN_NAMES = ("latent", "report")
    OUTPUT_TOOLTIPS = ("Unscaled latents.", "What was planned, used and padded.")
    FUNCTION = "encode"
    SEARCH_ALIASES = (
        "vae encode",
        "cogvideox encode",
        "wan encode",
        "video to latent",
        "encode tiled",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The host asks for this."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The frames of one clip, in order."}),
                "vae": ("VAE", {"tooltip": "A VAE that Exact VAE Loader knows, from any loader."}),
                **RUN_WIDGETS,
                **FIT_WIDGETS,
                "posterior": POSTERIOR,
                "sample_seed": SAMPLE_SEED,
            },
            "hidden": {"unique_id": "UNIQUE_ID", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, chunk_size: int | None = None) -> bool | str:
        """Asked when a prompt is queued."""
        return refusal({"chunk_size": chunk_size}) or True

    def encode(self, images: Any, vae: Any, unique_id: str | None = None, **values: Any) -> Any:
        """LATENT and report of `images` [t, h, w, c] in [0, 1]."""
        from .bridge.host import result_dtype
        from .bridge.images import checked_image
        from .bridge.live import Watch
        from .bridge.origin import latent_of
        from .bridge.running import chosen_samples, encode_image, report, settings_of
        from .bridge.vae import exact_vae

        vae = exact_vae(vae)
        settings = settings_of(values, vae)
        image, notes = checked_image(images, vae.ends.colours_in)
        watch = Watch("encode", unique_id, values.get("extra_pnginfo"))
        run = encode_image(vae, image, settings, watch)
        samples = chosen_samples(vae, run.posterior, values)
        fitted = run.posterior.fitted
        latent = latent_of(samples.to(vae.output_device, result_dtype()), fitted)
        notes += run.notes
        return (latent, report(vae, run.plan, run.seconds, notes, fitted))
