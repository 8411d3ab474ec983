"""Which files does the host's own loader build, and what does it build of them?

Those of Wan, Qwen-Image, HunyuanVideo 1.5, SeedVR2 and Mochi by the authors' names: the host knows
their networks and all that belongs to them, so that what it builds is what other packs expect.
Files by other names, or whose weights the host would take only in part, are left to
`vae_core.load`, which also says what is wrong with them. CogVideoX is built here in every host,
since older ones misread its file, and so do hosts that know nothing of SeedVR2.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from . import host

WAN = "decoder.middle.0.residual.0.gamma"
"""A weight that tells this network by the authors' names."""

WAN_22 = "decoder.upsamples.0.upsamples.0.residual.2.weight"
"""A weight that 2.2 has beside it, whose network is another one."""

WAN_22_CHANNELS = 160
"""Of its first level, which the host does not read from a file."""

HUNYUAN_15 = {
    "decoder.mid.attn_1.norm.gamma": 1024,
    "encoder.conv_in.conv.weight": 128,
    "encoder.conv_out.conv.weight": 64,
}
"""Weights that tell HunyuanVideo 1.5 as the host builds it, with as many rows."""

HUNYUAN = {
    "decoder.mid.attn_1.norm.weight": 512,
    "encoder.conv_in.conv.weight": 128,
    "decoder.conv_in.conv.weight": 512,
    "post_quant_conv.weight": 16,
}
"""The same of HunyuanVideo 1.0."""

MOCHI = {
    "encoder.layers.0.weight": 64,
    "encoder.output_proj.weight": 24,
    "decoder.blocks.0.0.weight": 768,
    "decoder.blocks.2.blocks.3.stack.5.weight": 512,
}
"""The same of Mochi."""

SEEDVR2 = "decoder.up_blocks.2.upsamplers.0.upscale_conv.weight"
"""A weight that tells this network."""


def core_vae(path: Path, dtype: torch.dtype | None) -> Any:
    """The VAE that the host makes of the file at `path`; None where it had better not."""
    if not host.running() or not path.is_file() or not _is_known(_shapes_in(path)):
        return None
    return host.vae_of(host.weights_in(path), dtype)


def _is_known(shapes: Mapping[str, Sequence[int]]) -> bool:
    if SEEDVR2 in shapes:
        return host.native_network("seedvr.vae", "VideoAutoencoderKLWrapper") is not None
    first = shapes.get("encoder.conv1.weight", (0,))
    for known in (HUNYUAN_15, HUNYUAN, MOCHI):
        if all(shapes.get(name, (0,))[0] == rows for name, rows in known.items()):
            return True
    return WAN in shapes and (WAN_22 not in shapes or first[0] == WAN_22_CHANNELS)


def _shapes_in(path: Path) -> Mapping[str, Sequence[int]]:
    """The weights in a file by name, as shapes; none where it cannot be read as a plain one."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return {}
    plain = isinstance(found, dict) and all(isinstance(one, torch.Tensor) for one in found.values())
    return {name: one.shape for name, one in found.items()} if plain else {}
