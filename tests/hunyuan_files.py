"""HunyuanVideo 1.5's weights by the authors' names, which ComfyUI's file has as well."""

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
