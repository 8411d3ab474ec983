"""Nodes that host tests put beside the pack: clips to start from, and tensors written out exactly.

Loaded by the host, from a link in its custom_nodes.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import folder_paths
import torch
from safetensors.torch import save_file

from . import narrow


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
    """Normally distributed latents [1, channels, n, h, w]."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        whole = ("INT", {"default": 1, "min": 0, "max": 10_000})
        return {
            "required": dict.fromkeys(("frames", "rows", "columns", "seed"), whole),
            "optional": {"channels": ("INT", {"default": 16, "min": 1, "max": 10_000})},
        }

    def make(self, frames: int, rows: int, columns: int, seed: int, channels: int = 16):
        """The latents."""
        generator = torch.Generator().manual_seed(seed)
        shape = (1, channels, frames, rows, columns)
        return ({"samples": torch.randn(shape, generator=generator)},)


class TestConditioning:
    """A CONDITIONING that says nothing, to hang latents on."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        return {"required": {}}

    def make(self):
        """The conditioning."""
        return ([[torch.zeros(1, 4, 8), {}]],)


class TestHung:
    """The latents that a node hung on a CONDITIONING under `key`, the first of several."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "take"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        return {"required": {"conditioning": ("CONDITIONING",), "key": ("STRING", {"default": ""})}}

    def take(self, conditioning, key: str):
        """The latents."""
        found = conditioning[0][1][key]
        return ({"samples": found[0] if isinstance(found, list) else found},)


class TestReserved:
    """The bytes that core asks the host for before its VAE Encode and VAE Decode."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "ask"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        whole = ("INT", {"default": 1, "min": 1, "max": 10_000})
        return {
            "required": {"vae": ("VAE",), **dict.fromkeys(("frames", "height", "width"), whole)}
        }

    def ask(self, vae, frames: int, height: int, width: int):
        """Both numbers, for encode and decode."""
        video = (1, 3, frames, height, width)
        latents = (1, vae.latent_channels, (frames + 3) // 4, height // 8, width // 8)
        asked = (
            vae.memory_used_encode(video, vae.vae_dtype),
            vae.memory_used_decode(latents, vae.vae_dtype),
        )
        return (" ".join(str(int(number)) for number in asked),)


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


class _NarrowFile:
    """Core's own VAE of a file, narrower than what core's class has by itself."""

    RETURN_TYPES = ("VAE", "STRING")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        return {"required": {"vae_name": ("STRING", {"default": ""})}}

    def load(self, vae_name: str):
        """The VAE, and what it holds."""
        import comfy.sd
        import comfy.utils

        weights = comfy.utils.load_torch_file(folder_paths.get_full_path("vae", vae_name))
        with self.narrowed(weights):
            vae = comfy.sd.VAE(sd=weights)
        return (vae, type(vae.first_stage_model).__name__)

    def narrowed(self, weights: dict):
        """A context in which core's class has the widths of these weights."""
        raise NotImplementedError


class TestNarrowSeedVR2(_NarrowFile):
    """SeedVR2: its class has its widths from a constant."""

    def narrowed(self, weights: dict):
        """With another constant."""
        from comfy.ldm.seedvr import vae as seedvr

        levels = range(len({name.split(".")[2] for name in weights if ".down_blocks." in name}))
        name = "encoder.down_blocks.{}.resnets.0.conv1.weight"
        widths = tuple(weights[name.format(level)].shape[0] for level in levels)
        return patch.object(seedvr, "BYTEDANCE_BLOCK_OUT_CHANNELS", widths)


class TestNarrowMochi(_NarrowFile):
    """Mochi: its class has the published widths alone."""

    def narrowed(self, weights: dict):
        """With the class of narrow ones in its place."""
        return narrow.NETWORKS["mochi"]()


class TestNarrowVAE:
    """Core's own VAE of a family, as its loader makes it, but narrow and with random weights."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        """The host asks for this."""
        return {"required": {"family": (list(narrow.NETWORKS),)}}

    def load(self, family: str):
        """The VAE."""
        return (narrow.vae_of(family),)


NODES = (
    TestClip,
    TestLatents,
    TestConditioning,
    TestHung,
    TestReserved,
    TestCapture,
    TestNarrowSeedVR2,
    TestNarrowMochi,
    TestNarrowVAE,
)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
