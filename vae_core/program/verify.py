"""Which programs are legal?

`verify` is called wherever a program is made; what it lets through, the engine runs as it is
written. It looks at one step after the other, with the stores that were written before it.
"""

from __future__ import annotations

from ..errors import LoweringError
from ..geometry.region import Halo
from .parts import STEADY, Conv, First, Rate, TimeMap
from .steps import SOURCE, Program, Step


def _fault(program: Program, step: Step, written: set[int]) -> str | None:
    """The rule that `step` breaks, given the stores written before it; None for a legal step."""
    src, dst = program.stores[step.src], program.stores[step.dst]
    if step.src not in written:
        return f"reads store {step.src} before anything wrote it"
    if step.src == step.dst:
        return "writes the store that it reads with a halo"
    if src.channels != step.mix.stored_channels or dst.channels != step.mix.out_channels:
        return f"joins {src.channels} to {dst.channels} channels by {step.mix}"
    if step.norm and step.norm.channels != src.channels:
        return f"normalises {src.channels} channels with a norm of {step.norm.channels}"
    mapped = step.time_map in (TimeMap.POOL_PAIRS, TimeMap.REPEAT_PAIRS)
    if step.norm and (mapped or step.upscale != 1):
        return "normalises and maps indices in one read"
    if step.history and mapped:
        return "keeps history of mapped frames"
    rated = step.rate != STEADY
    if rated and (mapped or step.unfolds or step.upscale != 1 or step.norm):
        return "changes the rate of frames beside something else"
    if step.mix.shuffle and step.rate not in (STEADY, Rate(up=step.mix.shuffle.frames)):
        return "makes other frames than its shuffle has"
    if step.norm and step.norm.per_frame and step.norm.modulated:
        return "modulates by the latents what has the statistics of a frame"
    if step.residual and step.rate.first.copied:
        return "adds to frames that are copied past its mix"
    if step.phases > 1 and step.in_place:
        return "overwrites in several parts what it adds"
    if step.rate.first.copied and src.channels != dst.channels:
        return f"copies {src.channels} channels past its mix to {dst.channels}"
    if step.history < 0:
        return "passes over frames that nothing sees"
    if step.unfolds and (step.mix.kernel_t != 3 or src.shown != (1 if step.upscale == 2 else 2)):
        return "unfolds what is not a kernel of three frames over unique frames"
    if step.still and step.unfolds:
        return "unfolds a frame that stands alone"
    if step.upscale == 2 and (step.mix.kernel, step.mix.pad) != (3, Halo(1, 1)):
        return f"upsamples for a kernel that has no 2x2 phases: {step.mix}"
    past = step.history or step.in_place or step.rate.first is not First.SEEN
    if program.looks_ahead and (past or not isinstance(step.mix, Conv)):
        return "keeps to the past in a network that looks ahead"
    if step.dst in written and not step.in_place:
        return f"overwrites store {step.dst}"
    return _residual_fault(program, step, written)


def _residual_fault(program: Program, step: Step, written: set[int]) -> str | None:
    if step.residual is None:
        return None
    added = program.stores[step.residual.store].channels
    shortcut = step.residual.shortcut
    if step.residual.store not in written:
        return f"adds store {step.residual.store} before anything wrote it"
    if fold := step.residual.fold:
        made, side = step.mix.out_channels * step.phases, step.side_made
        fits = (fold.frames, fold.side) == (step.frames_made, side) and made % added == 0
        return None if fits and fold.spreads else f"adds {added} channels laid out by {fold}"
    if shortcut is None:
        return (
            None
            if added == step.mix.out_channels
            else f"adds {added} channels to {step.mix.out_channels}"
        )
    if (shortcut.in_channels, shortcut.out_channels) != (added, step.mix.out_channels):
        return f"adds {added} channels through {shortcut}"
    return None


def verify(program: Program) -> Program:
    """`program` itself when it is legal; `LoweringError` naming the step and the rule it breaks
    otherwise.
    """
    written = {SOURCE}
    for step in program.steps:
        fault = _fault(program, step, written)
        if fault:
            raise LoweringError(f"{program.name}: step {step.path} {fault}.")
        written.add(step.dst)
    if written != set(range(len(program.stores))):
        raise LoweringError(
            f"{program.name}: some of its {len(program.stores)} stores are never written."
        )
    return program
