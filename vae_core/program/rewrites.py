"""Which work in a lowered program would be done twice, or held twice, and how is it left out?

Passes from program to program, each exact in real numbers and free to be left out:

1. `unique_frames`: upsampling in time shows every frame twice, and a convolution of single frames
   makes the same of both. The frames are stored once, counted twice in statistics, and the next
   causal convolution makes a pair of frames of each (kernels.pair_weights).
2. `still_frame`: a clip of one frame has no past but what a convolution sees before it. Where that
   is the frame itself, all taps in time see it, and their sum does their work at a third of the
   cost; where it is zeros, the last tap does. What is copied past a mix needs no step.
3. `narrow_in_place`: where a block ends narrower than it began, its result overwrites the first
   channels of its own input, which nothing reads any more.

Beside them stands `as_referred`, which makes another network of one: as some implementation has it.

Nothing here knows of sizes, tiles or tensors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..settings import Reference
from .parts import PICTURE, STEADY, Attend, Keys, Norm, Scope, TimeMap
from .steps import SOURCE, Program, Step, StoreSpec
from .verify import verify


@lru_cache(maxsize=16)
def unique_frames(program: Program) -> Program:
    """`program` with the frames that upsampling in time repeats stored and convolved once."""
    stores, steps = list(program.stores), list(program.steps)
    for index, step in enumerate(program.steps):
        if step.time_map is TimeMap.REPEAT_PAIRS:
            spec = stores[step.dst]
            stores[step.dst] = replace(spec, frames=2 * spec.frames, shown=2)
            steps[index] = replace(steps[index], time_map=TimeMap.SAME)
            _unfold_readers(steps, stores, index)
    return verify(Program(program.name, tuple(steps), tuple(stores)))


@lru_cache(maxsize=16)
def still_frame(program: Program) -> Program:
    """`program` for clips of one frame, with the taps of causal convolutions summed."""
    steps = tuple(map(_stilled, _unbypassed(program)))
    used = sorted({SOURCE} | {step.dst for step in steps})
    numbers = {store: number for number, store in enumerate(used)}
    renumbered = tuple(_renamed(step, numbers) for step in steps)
    return verify(Program(program.name, renumbered, tuple(program.stores[s] for s in used)))


def told(program: Program, timestep: float) -> Program:
    """`program` for latents of which it is told that so much noise is left in them."""
    steps = tuple(replace(step, norm=_told(step.norm, timestep)) for step in program.steps)
    return replace(program, steps=steps)


def _told(norm: Norm | None, timestep: float) -> Norm | None:
    if norm is None or norm.timestep is None:
        return norm
    return replace(norm, timestep=replace(norm.timestep, value=timestep))


def _stilled(step: Step) -> Step:
    """A step for a lone frame, which is a picture to those that tell it from other frames."""
    picture = step.as_picture()
    rate, mix = picture.rate if picture.rate == PICTURE else STEADY, picture.mix
    if isinstance(mix, Attend):
        mix = replace(mix, keys=Keys.FRAME)  # there are no others
    time_map = TimeMap.SAME if picture.unfolds else picture.time_map
    still = mix.kernel_t > 1
    return replace(picture, mix=mix, still=still, rate=rate, time_map=time_map)


def _unbypassed(program: Program) -> list[Step]:
    """The steps of `program` but those past which a lone frame is copied."""
    kept: list[Step] = []
    names: dict[int, int] = {}
    for step in program.steps:
        if not step.rate.first.copied:
            kept.append(_renamed(step, names))
        else:
            names[step.dst] = names.get(step.src, step.src)
    return kept


def _unfold_readers(steps: list[Step], stores: list[StoreSpec], index: int) -> None:
    """Let the steps after `index` that read its unique frames make pairs of them."""
    unique = steps[index].dst
    for later in range(index + 1, len(steps)):
        step = steps[later]
        if step.src == unique:
            steps[later] = replace(step, time_map=TimeMap.UNFOLD_PAIRS)
        if step.residual and step.residual.store == unique:
            residual = replace(step.residual, repeated=True)
            steps[later] = replace(step, residual=residual)
            if step.in_place:
                _move(steps, stores, later)
            return


def _move(steps: list[Step], stores: list[StoreSpec], index: int) -> None:
    """Give step `index` a store of its own where it would overwrite unique frames by all frames."""
    old = steps[index].dst
    spec = stores[old]
    stores.append(replace(spec, frames=spec.frames // 2, shown=1))
    new = len(stores) - 1
    steps[index] = replace(steps[index], dst=new)
    for later in range(index + 1, len(steps)):
        steps[later] = _renamed(steps[later], {old: new})


def _renamed(step: Step, names: dict[int, int]) -> Step:
    """`step` with its stores by other numbers, where `names` has them."""
    residual = step.residual
    if residual:
        residual = replace(residual, store=names.get(residual.store, residual.store))
    src, dst = (names.get(store, store) for store in (step.src, step.dst))
    return replace(step, src=src, dst=dst, residual=residual)


def as_referred(program: Program, reference: object) -> Program:
    """`program` as the implementation has it that a `settings.Reference` means.

    ComfyUI's own class attends to later frames, too, where the authors' goes back to earlier ones;
    and has no frames to leave out, where diffusers' has. Where it takes a clip a few frames at a
    time, statistics are those of its runs of frames, and as it is, what halves time sees a frame
    earlier.
    """
    if reference not in (Reference.CORE, Reference.CORE_AS_IS):
        return program
    steps = tuple(_in_runs(_unmasked(step)) for step in program.steps)
    cut = any(step.norm and step.norm.together for step in steps)
    if cut and reference is Reference.CORE_AS_IS:
        steps = tuple(map(_late, steps))
    return replace(program, steps=steps)


def referred(program: Program) -> Reference:
    """Whose result a program stands for, where that makes a difference; see `as_referred`."""
    if any(step.mix.late for step in program.steps):
        return Reference.CORE_AS_IS
    cut = any(step.norm and step.norm.together for step in program.steps)
    return Reference.CORE if cut or program.collects else Reference.OFFICIAL


def _unmasked(step: Step) -> Step:
    if isinstance(step.mix, Attend) and step.mix.looks_back:
        return replace(step, mix=replace(step.mix, keys=Keys.ALL))
    return replace(step, leaves_out=0)


def _in_runs(step: Step) -> Step:
    if step.norm and step.norm.runs:
        return replace(step, norm=replace(step.norm, scope=Scope.RUN))
    return step


def _late(step: Step) -> Step:
    """A step that sees a frame earlier than it should, where it passes over some."""
    mix = step.mix
    if isinstance(mix, Attend) or step.rate.down == 1:
        return step
    return replace(step, mix=replace(mix, kernel_t=mix.kernel_t + 1, late=1))


@lru_cache(maxsize=16)
def narrow_in_place(program: Program) -> Program:
    """`program` with narrower results of blocks written over the blocks' inputs."""
    if program.looks_ahead:  # what is written is later than what is read
        return program
    stores, last_use = list(program.stores), program.last_use()
    for index, step in enumerate(program.steps):
        residual = step.residual
        if residual is None or residual.repeated or residual.fold or step.in_place:
            continue
        if step.dst == program.sink:
            continue  # which is the caller's
        fits = stores[step.dst].channels <= stores[residual.store].channels
        if fits and last_use[residual.store] == index:
            stores[step.dst] = replace(stores[step.dst], inside=residual.store)
    return verify(Program(program.name, program.steps, tuple(stores)))
