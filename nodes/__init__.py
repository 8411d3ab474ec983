"""Which nodes does this pack give to ComfyUI? None yet: they come with a later version."""

from __future__ import annotations

from typing import Any

NODE_CLASS_MAPPINGS: dict[str, type[Any]] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
