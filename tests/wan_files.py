"""Narrow random networks of Wan 2.1, and their weights under the authors' names."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLWan

State = dict[str, torch.Tensor]
_PARTS = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}


def wan_module(width: int = 8, **config: object) -> AutoencoderKLWan:
    """A narrow Wan 2.1 VAE with random weights from a fixed seed."""
    torch.manual_seed(0)
    module = AutoencoderKLWan(**{"base_dim": width, "num_res_blocks": 1} | config)
    for name, parameter in module.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return module.eval().requires_grad_(False)


def authors_state(module: AutoencoderKLWan) -> State:
    """The weights by the authors' names, found by walking the parts in the order of their lists."""
    paths = {"quant_conv": "conv1", "post_quant_conv": "conv2"}
    for name in ("encoder", "decoder"):
        coder = getattr(module, name)
        paths |= {f"{name}.conv_in": f"{name}.conv1", f"{name}.norm_out": f"{name}.head.0"}
        paths |= {f"{name}.conv_out": f"{name}.head.2"}
        for new, old in enumerate(("resnets.0", "attentions.0", "resnets.1")):
            paths[f"{name}.mid_block.{old}"] = f"{name}.middle.{new}"
        blocks = coder.down_blocks if name == "encoder" else coder.up_blocks
        new = 0
        for path, part in blocks.named_modules(
            prefix=f"{name}.{'down' if name == 'encoder' else 'up'}_blocks"
        ):
            if type(part).__name__ in ("WanResidualBlock", "WanResample"):
                paths[path] = f"{name}.{'down' if name == 'encoder' else 'up'}samples.{new}"
                new += 1
    return {_renamed(name, paths): tensor for name, tensor in module.state_dict().items()}


def _renamed(name: str, paths: dict[str, str]) -> str:
    path = max((one for one in paths if name.startswith(f"{one}.")), key=len)
    first, _, rest = name.removeprefix(f"{path}.").partition(".")
    return ".".join(one for one in (paths[path], _PARTS.get(first, first), rest) if one)
