"""What ComfyUI core's class of HunyuanVideo 1.0 does otherwise than diffusers' modules do, done to
these: attention without a mask, statistics over two latent frames at a time outside of the middle,
and on request an encoder whose frames are one late where it halves time.

That this is what core does, the host tier measures on core's own class (`host`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.autoencoders import autoencoder_kl_hunyuan_video as theirs
from torch import Tensor


def in_runs(norm: torch.nn.GroupNorm, x: Tensor, frames_of_latent: int, *, encodes: bool) -> Tensor:
    """x [b, c, t, h, w] normalised, two latent frames at a time; an encoder begins with one."""
    first = 1 if encodes else 1 + frames_of_latent
    runs = (x[:, :, :first], *x[:, :, first:].split(2 * frames_of_latent, dim=2))
    plain = torch.nn.functional.group_norm
    made = [
        plain(run, norm.num_groups, norm.weight, norm.bias, norm.eps)
        for run in runs
        if run.shape[2]
    ]
    return torch.cat(made, 2)


@contextmanager
def as_core(module: torch.nn.Module, latents: int, *, late: bool = False) -> Iterator[None]:
    """diffusers' module as core's class is, for clips of so many latent frames."""
    usual, hooks = theirs.prepare_causal_attention_mask, []
    theirs.prepare_causal_attention_mask = lambda n, m, dtype, device, batch_size=None: torch.zeros(
        batch_size, n * m, n * m, dtype=dtype, device=device
    )
    for name, part in module.named_modules():
        outside = "_blocks." in name or name == "decoder.conv_norm_out"
        if isinstance(part, torch.nn.GroupNorm) and outside:
            part.forward = _by_runs(part, latents, encodes=name.startswith("encoder"))
            hooks.append(part)
        elif (
            late and isinstance(part, theirs.HunyuanVideoCausalConv3d) and part.conv.stride[0] == 2
        ):
            part.forward = _a_frame_late(part)
            hooks.append(part)
    try:
        yield
    finally:
        theirs.prepare_causal_attention_mask = usual
        for part in hooks:
            del part.forward


def _by_runs(norm: torch.nn.GroupNorm, latents: int, *, encodes: bool):
    def forward(x: Tensor) -> Tensor:
        frames = (x.shape[2] - 1) // max(latents - 1, 1)
        return (
            in_runs(norm, x, frames, encodes=encodes)
            if latents > 1
            else type(norm).forward(norm, x)
        )

    return forward


def _a_frame_late(conv: torch.nn.Module):
    return lambda x: type(conv).forward(conv, torch.cat((x[:, :, :1], x[:, :, :-1]), 2))
