"""Which nodes does this pack give to ComfyUI?

Ids are kept by saved workflows and never change. Importing this leaves the engine alone: nodes
import it when they run. A node that cannot be loaded is left out with a line in the log, and so are
all of them where another copy of the pack answers already.
"""

from __future__ import annotations

import importlib
from typing import Any

from .bridge import fitness

NODES = {
    "ExactVAELoader": ("loader", "Exact VAE Loader"),
    "ExactVAEApply": ("loader", "Exact VAE Apply"),
    "ExactVAEEncodeTiled": ("encode", "Exact VAE Encode (Tiled)"),
    "ExactVAEDecodeFramewise": ("decode", "Exact VAE Decode (Framewise)"),
    "ExactVAEEncodeVideo": ("video", "Exact VAE Encode Video"),
    "ExactVAEDecodeVideo": ("video", "Exact VAE Decode Video"),
    "ExactVAEPlan": ("plan", "Exact VAE Plan"),
    "ExactVAELatentConvert": ("convert", "Exact VAE Latent Convert"),
}
"""By id: the module of this folder that has the class, and the name for people."""


def _loaded() -> dict[str, type[Any]]:
    """The classes that can be loaded; what cannot is logged once for each module."""
    found: dict[str, type[Any]] = {}
    broken: set[str] = set()
    for name, (module, _) in NODES.items():
        if module in broken:
            continue
        try:
            kind = getattr(importlib.import_module(f".{module}", __name__), name)
        except (Exception, SystemExit) as error:
            broken.add(module)
            lost = ", ".join(shown for place, shown in NODES.values() if place == module)
            fitness.warn(f"{lost} left out: {type(error).__name__}: {error}.")
            continue
        found[name] = fitness.explained(kind, NODES[name][1])
    return found


NODE_CLASS_MAPPINGS: dict[str, type[Any]] = _loaded() if fitness.answers_alone() else {}

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {name: NODES[name][1] for name in NODE_CLASS_MAPPINGS}
