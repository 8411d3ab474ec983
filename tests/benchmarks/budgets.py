"""How many bytes move within twenty budgets, from the smallest to all on the device? A table and a
plot, of plans alone: nothing is run.

    cd tests; python -m benchmarks.budgets ../docs/budgets

`before` is the better of the placements that have names, which is what there was to choose from.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from math import log
from pathlib import Path

import torch

from vae_core import BudgetError, Settings, from_module
from vae_core.planning.machine import Machine
from vae_core.planning.plan import Job, Plan
from vae_core.planning.planner import make_plan
from vae_core.planning.workspaces import Workspaces

GIB, BUDGETS = 2**30, 20
CARD = Machine(apart=True, workspace_bytes=256 * 2**20, workspaces=Workspaces())
NAMED = ("device", "caches-on-host", "host")
CLIPS = (
    ("cogvideox", (49, 480, 720)),
    ("cogvideox", (81, 768, 1360)),
    ("wan", (81, 720, 1280)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Bytes moved within a budget, those twice that the processor copies too: now, and by the
    better of the named placements.
    """

    budget_bytes: int
    moved_bytes: int
    before_bytes: int


def network(family: str) -> torch.nn.Module:
    """The published network, without memory."""
    from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan

    with torch.device("meta"):
        if family == "wan":
            return AutoencoderKLWan().to(torch.bfloat16)
        return AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(128, 256, 256, 512),
            layers_per_block=3,
        ).to(torch.bfloat16)


def job_of(family: str, kind: str, shape: tuple[int, int, int]) -> Job:
    """The job for a clip of sample frames, height and width."""
    vae, (frames, height, width) = from_module(network(family), device="meta"), shape
    if kind == "encode":
        return vae.plan_encode((1, 3, frames, height, width)).job
    latents = (1, vae.latent_channels, (frames - 1) // 4 + 1, height // 8, width // 8)
    return vae.plan_decode(latents).job


def named(job: Job, budget: int) -> Plan | None:
    """The first of the named placements that fits with tiles that are no hindrance, or the last
    that fits at all.
    """
    fallback = None
    for placement in NAMED:
        try:
            plan = make_plan(job, Settings(placement=placement, budget_bytes=budget), CARD)
        except BudgetError:
            continue
        if is_reasonable(plan):
            return plan
        fallback = plan
    return fallback


def is_reasonable(plan: Plan) -> bool:
    """Whether no tile is smaller than 64 pixels where there are more."""
    program = plan.job.program
    for step, tile in zip(program.steps, plan.tiles, strict=True):
        spec = program.stores[step.dst]
        px = spec.px * step.side_made
        whole = plan.job.source.h * program.stores[0].px // px
        if tile.h < min(max(64 // px, 1), whole):
            return False
    return True


def rows_of(job: Job) -> list[Row]:
    """A row for each budget, the nth root of the whole span after the other."""
    try:
        make_plan(job, Settings(budget_bytes=1), CARD)
        raise AssertionError("nothing fits in a byte")
    except BudgetError as refusal:
        least = refusal.smallest_bytes
    most = make_plan(job, Settings(placement="device"), CARD).peak_bytes
    rows = []
    for number in range(BUDGETS):
        budget = round(least * (most / least) ** (number / (BUDGETS - 1)))
        plan, before = make_plan(job, Settings(budget_bytes=budget), CARD), named(job, budget)
        assert before is not None
        rows.append(Row(budget, plan.cost_bytes, before.cost_bytes))
    return rows


def cliff(job: Job) -> int:
    """The smallest budget at which a named placement leaves all stores on the device."""
    low, high = 1, make_plan(job, Settings(placement="device"), CARD).peak_bytes
    while high - low > 2**20:
        middle = (low + high) // 2
        plan = None
        with suppress(BudgetError):
            plan = make_plan(job, Settings(placement="caches-on-host", budget_bytes=middle), CARD)
        if plan is not None and is_reasonable(plan):
            high = middle
        else:
            low = middle
    return high


def at(job: Job, budget: int) -> Row:
    """The row of one budget."""
    plan, before = make_plan(job, Settings(budget_bytes=budget), CARD), named(job, budget)
    assert before is not None
    return Row(budget, plan.cost_bytes, before.cost_bytes)


def main(target: str) -> None:
    """Write `target`.md, .json and .svg."""
    found = {}
    for family, shape in CLIPS:
        for kind in ("decode", "encode"):
            job = job_of(family, kind, shape)
            edge = cliff(job)
            name = f"{family} {'x'.join(map(str, shape))} {kind}"
            found[name] = rows_of(job), at(job, edge // 2), at(job, edge * 9 // 10), edge
    Path(f"{target}.md").write_text(text(found))
    numbers = {
        name: [[r.budget_bytes, r.moved_bytes, r.before_bytes] for r in rows]
        for name, (rows, *_) in found.items()
    }
    Path(f"{target}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    draw(found, f"{target}.svg")


def text(found) -> str:
    """The tables."""
    lines = [
        "# Bytes moved within a budget",
        "",
        "Projections of plans in bf16, batch 1, for a card whose library takes as much for a"
        " convolution as its input and result; nothing was run. `before`: the better of the"
        " placements that have names, counted in the same way. GiB, over all chunks; what the"
        " processor copies, too, on its way counts twice.",
        "",
        "![Bytes moved over the budget](budgets.svg)",
        "",
    ]
    for name, (rows, half, most, edge) in found.items():
        lines += [f"## {name}", "", "| budget | moved | before | share |", "|-|-|-|-|"]
        lines += map(_line, rows)
        lines += [
            "",
            f"`before` has its stores on the card from {edge / GIB:.2f} GiB on. At half of that"
            f" {half.moved_bytes / GIB:.1f} of {half.before_bytes / GIB:.1f} GiB move"
            f" ({_share(half)}), at nine tenths {most.moved_bytes / GIB:.1f} of"
            f" {most.before_bytes / GIB:.1f} ({_share(most)}).",
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


def _share(row: Row) -> str:
    return f"{100 * row.moved_bytes / row.before_bytes:.0f} %" if row.before_bytes else "-"


def _line(row: Row) -> str:
    sizes = (row.budget_bytes, row.moved_bytes, row.before_bytes)
    budget, moved, before = (f"{size / GIB:.{2 if i == 0 else 1}f}" for i, size in enumerate(sizes))
    return f"| {budget} | {moved} | {before} | {_share(row)} |"


SIDE, GAP = (420, 200), 60


def draw(found, path: str) -> None:
    """The plots, two in a row: bytes moved over the budget, whose axis is logarithmic."""
    width, height = SIDE[0] + GAP, SIDE[1] + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * width + GAP}"'
        f' height="{-(-len(found) // 2) * height + GAP // 2}" font-family="sans-serif"'
        ' font-size="11" fill="#1f2933"><rect width="100%" height="100%" fill="#fbfcfd"/>'
    ]
    for number, (name, (rows, *_)) in enumerate(found.items()):
        x, y = GAP + number % 2 * width, GAP // 2 + number // 2 * height
        parts.append(f'<g transform="translate({x} {y})">{plot(name, rows)}</g>')
    Path(path).write_text("\n".join(parts) + "\n</svg>\n")


def plot(name: str, rows: list[Row]) -> str:
    """One of them."""
    low, high = (log(row.budget_bytes) for row in (rows[0], rows[-1]))
    most = max(max(row.moved_bytes, row.before_bytes) for row in rows)

    def line(values, colour: str) -> str:
        points = " ".join(
            f"{SIDE[0] * (log(row.budget_bytes) - low) / (high - low):.1f},"
            f"{SIDE[1] * (1 - value / most):.1f}"
            for row, value in zip(rows, values, strict=True)
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    ends = f"{rows[0].budget_bytes / GIB:.2f}", f"{rows[-1].budget_bytes / GIB:.2f} GiB"
    return "".join(
        (
            f'<text y="-8" font-weight="bold">{name}, GiB moved</text>',
            f'<rect width="{SIDE[0]}" height="{SIDE[1]}" fill="none" stroke="#7b8794"/>',
            line([row.before_bytes for row in rows], "#b0b7bf"),
            line([row.moved_bytes for row in rows], "#2f6fb0"),
            f'<text x="-8" y="10" text-anchor="end">{most / GIB:.0f}</text>',
            f'<text x="-8" y="{SIDE[1]}" text-anchor="end">0</text>',
            f'<text y="{SIDE[1] + 15}">{ends[0]}</text>',
            f'<text x="{SIDE[0]}" y="{SIDE[1] + 15}" text-anchor="end">{ends[1]}</text>',
            f'<text x="{SIDE[0] - 8}" y="16" text-anchor="end" fill="#7b8794">before</text>',
            f'<text x="{SIDE[0] - 8}" y="30" text-anchor="end" fill="#2f6fb0">now</text>',
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
