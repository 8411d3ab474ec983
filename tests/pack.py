"""How do tests load the pack where no ComfyUI runs? As the host does, under any name."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "the_pack_in_some_folder"


@lru_cache(maxsize=1)
def pack() -> ModuleType:
    """The pack's root module."""
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def part(name: str) -> ModuleType:
    """A module inside the pack, such as `vae_core` or `nodes.bridge.widgets`."""
    pack()
    return importlib.import_module(f"{NAME}.{name}")


def node(name: str) -> type[Any]:
    """The class of a node."""
    return pack().NODE_CLASS_MAPPINGS[name]


def widgets(name: str) -> dict[str, Any]:
    """The widgets of a node at their defaults, as the web client sends them."""
    found = {}
    for key, (kind, *options) in node(name).INPUT_TYPES()["required"].items():
        if isinstance(kind, list):
            found[key] = options[0].get("default", kind[0]) if options else kind[0]
        elif kind in {"INT", "FLOAT", "STRING", "BOOLEAN"}:
            found[key] = options[0]["default"]
    return found


def run(name: str, *, change: dict[str, Any] | None = None, **linked: Any) -> Any:
    """What a node gives back; change: widgets that are not at their defaults."""
    kind = node(name)
    given = {**widgets(name), **(change or {}), **linked}
    result = getattr(kind(), kind.FUNCTION)(**given)
    return result["result"] if isinstance(result, dict) else result
