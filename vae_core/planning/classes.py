"""Which classes of convolutions does a program hand over, as an accelerator gets them?

A library chooses its kernel by what a `ConvClass` holds. A step hands over its own convolution, in
the form in which it is computed (see `running.phases`), the one of its residual, and both
modulation convolutions of its norm as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..program.parts import Attend, Conv, Norm
from ..program.steps import SOURCE, Program, Step
from .workspaces import ConvClass


def mixed(step: Step, *, accelerated: bool = True) -> ConvClass:
    """The class of a step's own convolution.

    accelerated: whether all outputs of a square of 2x2 are made by one convolution.
    """
    mix, squares = step.mix, 4 if accelerated and step.upscale == 2 else 1
    down, side, _ = step.strides
    return ConvClass(mix.in_channels, squares * mix.out_channels, step.taps, side, down)


def shortcut_class(shortcut: Conv) -> ConvClass:
    """The class of a residual's convolution."""
    return ConvClass(shortcut.in_channels, shortcut.out_channels, (1, 1, 1))


def mapped(latent_channels: int, norm: Norm) -> ConvClass:
    """The class of a modulated norm's convolutions, both as one."""
    return ConvClass(latent_channels, 2 * norm.channels, (1, 1, 1))


def classes_of(program: Program) -> frozenset[ConvClass]:
    """All that a program hands over, in whatever chunks."""
    return frozenset(kind for step in program.steps for kind in _of_step(program, step))


def _of_step(program: Program, step: Step) -> Iterator[ConvClass]:
    if not isinstance(step.mix, Attend):
        kind = mixed(step)
        yield kind
        # a clip's first frame by itself, see `Step.runs`
        yield replace(kind, taps=(1, *kind.taps[1:]), stride_t=1)
    if step.residual and step.residual.shortcut:
        yield shortcut_class(step.residual.shortcut)
    if step.norm and step.norm.modulated:
        yield mapped(program.stores[SOURCE].channels, step.norm)


def attends(program: Program) -> bool:
    """Whether a program has attention."""
    return any(isinstance(step.mix, Attend) for step in program.steps)
