"""Files of LTX by the authors' names, of networks of diffusers' classes."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from networks_ltx import random_ltx2
from safetensors.torch import save_file

# Where the authors have what diffusers has in levels, by its path there.
SECOND = {
    "encoder.mid_block.": "encoder.down_blocks.8.",
    **{
        f"encoder.down_blocks.{i}.{name}": f"encoder.down_blocks.{2 * i + at}."
        for i in range(4)
        for at, name in enumerate(("", "downsamplers.0."))
    },
    "decoder.mid_block.": "decoder.up_blocks.0.",
    **{
        f"decoder.up_blocks.{i}.{name}": f"decoder.up_blocks.{2 * i + at}."
        for i in range(3)
        for name, at in (("upsamplers.0.", 1), ("", 2))
    },
}
FIRST = {
    "encoder.mid_block.": "encoder.down_blocks.9.",
    "encoder.down_blocks.0.downsamplers.0.": "encoder.down_blocks.1.",
    "encoder.down_blocks.0.conv_out.": "encoder.down_blocks.2.",
    "encoder.down_blocks.0.": "encoder.down_blocks.0.",
    "encoder.down_blocks.1.downsamplers.0.": "encoder.down_blocks.4.",
    "encoder.down_blocks.1.conv_out.": "encoder.down_blocks.5.",
    "encoder.down_blocks.1.": "encoder.down_blocks.3.",
    "encoder.down_blocks.2.downsamplers.0.": "encoder.down_blocks.7.",
    "encoder.down_blocks.2.": "encoder.down_blocks.6.",
    "encoder.down_blocks.3.": "encoder.down_blocks.8.",
    "decoder.mid_block.": "decoder.up_blocks.0.",
    "decoder.up_blocks.0.": "decoder.up_blocks.1.",
    "decoder.up_blocks.1.upsamplers.0.": "decoder.up_blocks.2.",
    "decoder.up_blocks.1.": "decoder.up_blocks.3.",
    "decoder.up_blocks.2.conv_in.": "decoder.up_blocks.4.",
    "decoder.up_blocks.2.upsamplers.0.": "decoder.up_blocks.5.",
    "decoder.up_blocks.2.": "decoder.up_blocks.6.",
    "decoder.up_blocks.3.conv_in.": "decoder.up_blocks.7.",
    "decoder.up_blocks.3.upsamplers.0.": "decoder.up_blocks.8.",
    "decoder.up_blocks.3.": "decoder.up_blocks.9.",
}
ENDS = {
    "latents_mean": "per_channel_statistics.mean-of-means",
    "latents_std": "per_channel_statistics.std-of-means",
    "decoder.time_embedder.": "decoder.last_time_embedder.",
    "decoder.scale_shift_table": "decoder.last_scale_shift_table",
}


def authors_name(name: str, levels: dict[str, str]) -> str:
    """The name that the authors have for one of diffusers' names."""
    table = {**ENDS, **levels}
    ours = max((one for one in table if name.startswith(one)), key=len, default="")
    name = table.get(ours, "") + name.removeprefix(ours)
    name = name.replace(".resnets.", ".res_blocks.").replace(".norm3.", ".norm3.norm.")
    return re.sub(r"conv_shortcut\.conv\.", "conv_shortcut.", name)


def authors_state(module: torch.nn.Module, levels: dict[str, str]) -> dict[str, torch.Tensor]:
    state = {authors_name(name, levels): value for name, value in module.state_dict().items()}
    state["per_channel_statistics.mean-of-stds"] = torch.ones_like(
        state["per_channel_statistics.mean-of-means"]
    )
    return {name: value.contiguous() for name, value in state.items()}


OTHERS = {
    "model.diffusion_model.transformer_blocks.0.attn1.to_q.weight": (4, 4),
    "audio_vae.per_channel_statistics.mean-of-means": (4,),
    "audio_vae.decoder.mid.block_1.conv1.conv.weight": (4, 4, 3, 3),
    "vocoder.conv_pre.weight": (4, 4, 3),
}
"""What a checkpoint holds beside the VAE, by shape."""


def write_checkpoint(module: torch.nn.Module, path: Path) -> None:
    """A checkpoint of LTX-2 with the VAE `module` in it, and next to nothing else."""
    state = {f"vae.{name}": value for name, value in authors_state(module, SECOND).items()}
    save_file({**{name: torch.zeros(shape) for name, shape in OTHERS.items()}, **state}, path)


CHECKPOINT = "checkpoints/ltx-2-19b-dev-fp8.safetensors"
"""The one that ComfyUI's template of LTX-2 loads."""


def write_narrow_checkpoint(models: Path) -> Path:
    """Such a file in a folder of models, of a narrow VAE with as many latent channels as all have
    and random weights.
    """
    path = models / CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(random_ltx2(latent_channels=128), path)
    return path
