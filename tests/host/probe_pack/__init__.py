"""Nodes that host tests put beside the pack: clips to start from, and tensors written out exactly.

Loaded by the host, from a link in its custom_nodes.
"""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from safetensors.torch import save_file


class TestClip:
    """A smooth random clip [t, h, w, 3] in [0, 1]; `negate` turns its first frame over."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        whole = ("INT", {"default": 1, "min": 0, "max": 10_000})
        return {
            "required": {
                **dict.fromkeys(("frames", "height", "width", "seed"), whole),
                "negate": ("BOOLEAN", {"default": False}),
            }
        }

    def make(self, frames: int, height: int, width: int, seed: int, negate: bool):
        """The clip."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(
            1, 3, frames // 2 + 1, height // 8 + 1, width // 8 + 1, generator=generator
        )
        video = torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear")
        image = video[0].permute(1, 2, 3, 0).contiguous()
        if negate:
            image[0] = 1.0 - image[0]
        return (image,)


class TestLatents:
    """Normally distributed latents [1, 16, n, h, w]."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        whole = ("INT", {"default": 1, "min": 0, "max": 10_000})
        return {"required": dict.fromkeys(("frames", "rows", "columns", "seed"), whole)}

    def make(self, frames: int, rows: int, columns: int, seed: int):
        """The latents."""
        generator = torch.Generator().manual_seed(seed)
        return ({"samples": torch.randn(1, 16, frames, rows, columns, generator=generator)},)


class TestCapture:
    """Writes an IMAGE, LATENT or STRING to output/captured/NAME.safetensors."""

    RETURN_TYPES = ()
    FUNCTION = "write"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        return {"required": {"value": ("*", {}), "name": ("STRING", {"default": "value"})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types):
        """Takes every type."""
        return True

    def write(self, value, name: str):
        """The file."""
        tensor = value["samples"] if isinstance(value, dict) else value
        text = {"text": tensor} if isinstance(tensor, str) else None
        folder = Path(folder_paths.get_output_directory()) / "captured"
        folder.mkdir(exist_ok=True)
        kept = torch.zeros(1) if text else tensor.detach().cpu().contiguous()
        save_file({"value": kept}, str(folder / f"{name}.safetensors"), metadata=text)
        return {"ui": {"text": [name]}}


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (TestClip, TestLatents, TestCapture)}
