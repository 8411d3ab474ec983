"""The weights of HunyuanVideo 1.5 and 1.0 by the names that ComfyUI's files have.

Of 1.5 they are the authors' names, too; 1.0's authors have diffusers'.
"""

from __future__ import annotations

import torch

PARTS = {
    ".mid_block.resnets.0.": ".mid.block_1.",
    ".mid_block.attentions.0.": ".mid.attn_1.",
    ".mid_block.resnets.1.": ".mid.block_2.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".resnets.": ".block.",
    ".down_blocks.": ".down.",
    ".up_blocks.": ".up.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".conv_shortcut.": ".nin_shortcut.conv.",
}


def authors_name(name: str) -> str:
    """The name that the authors have for one of diffusers' names."""
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return name


def authors_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of diffusers' module by the authors' names."""
    state = module.state_dict()
    return {authors_name(name): value.contiguous() for name, value in state.items()}


CORE_PARTS = {
    ".mid_block.resnets.0.": ".mid.block_1.",
    ".mid_block.attentions.0.group_norm.": ".mid.attn_1.norm.",
    ".mid_block.attentions.0.to_out.0.": ".mid.attn_1.proj_out.",
    ".mid_block.attentions.0.to_": ".mid.attn_1.",
    ".mid_block.resnets.1.": ".mid.block_2.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    ".resnets.": ".block.",
    ".down_blocks.": ".down.",
    ".conv_shortcut.": ".nin_shortcut.",
    ".conv_norm_out.": ".norm_out.",
}
LEVELS = 4


def core_name(name: str) -> str:
    """The name that ComfyUI has for one of diffusers' names of HunyuanVideo 1.0."""
    for ours, theirs in CORE_PARTS.items():
        name = name.replace(ours, theirs)
    for level in range(LEVELS):
        name = name.replace(f".up_blocks.{level}.", f".up.{LEVELS - 1 - level}.")
    return name


def _as_core(name: str, value: torch.Tensor) -> torch.Tensor:
    linear = ".attentions.0.to_" in name and value.ndim == 2
    value = value[:, :, None, None, None] if linear else value
    return value.contiguous()


def core_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights of diffusers' module of HunyuanVideo 1.0 as ComfyUI's file has them."""
    return {core_name(name): _as_core(name, value) for name, value in module.state_dict().items()}
