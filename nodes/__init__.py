"""Which nodes does this pack give to ComfyUI?

Ids are kept by saved workflows and never change. Importing this leaves the engine alone: nodes
import it when they run.
"""

from __future__ import annotations

from typing import Any

from .bridge import routes
from .convert import ExactVAELatentConvert
from .decode import ExactVAEDecodeFramewise
from .encode import ExactVAEEncodeTiled
from .loader import ExactVAEApply, ExactVAELoader
from .plan import ExactVAEPlan
from .video import ExactVAEDecodeVideo, ExactVAEEncodeVideo

NODE_CLASS_MAPPINGS: dict[str, type[Any]] = {
    node.__name__: node
    for node in (
        ExactVAELoader,
        ExactVAEApply,
        ExactVAEEncodeTiled,
        ExactVAEDecodeFramewise,
        ExactVAEEncodeVideo,
        ExactVAEDecodeVideo,
        ExactVAEPlan,
        ExactVAELatentConvert,
    )
}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "ExactVAELoader": "Exact VAE Loader",
    "ExactVAEApply": "Exact VAE Apply",
    "ExactVAEEncodeTiled": "Exact VAE Encode (Tiled)",
    "ExactVAEDecodeFramewise": "Exact VAE Decode (Framewise)",
    "ExactVAEEncodeVideo": "Exact VAE Encode Video",
    "ExactVAEDecodeVideo": "Exact VAE Decode Video",
    "ExactVAEPlan": "Exact VAE Plan",
    "ExactVAELatentConvert": "Exact VAE Latent Convert",
}

routes.register()
