"""What is known about one side on one clip, and where is it kept?

1. `measured` counts one case; what fails becomes a row with the reason.
2. Rows are kept in docs/benchmarks.json with a fingerprint of the code that they describe: our
   planner and executor, or the peer's version. A row whose fingerprint has changed is counted anew.
3. `projected` is arithmetic alone, and says so in its row.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import diffusers
import torch

from . import core
from .clips import Clip
from .families import FAMILIES
from .sides import Core, Diffusers, Ours, Side, attention_operations

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "docs" / "benchmarks.json"

DECIDING = ("settings", "geometry", "program", "planning", "running", "vae")
"""What of vae_core the counted figures depend on beside the family: modules, and folders of them.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One side doing one thing to one clip."""

    side: Side
    kind: str
    clip: Clip
    family: str = "cogvideox"


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one case; None where there is none.

    placement, tile_px, budget_bytes: as asked for, and the placement that was chosen.
    tiles: how many, of all steps and chunks. projected_bytes: what the plan says.
    peak_bytes, operations, moved_bytes: as counted. failure: why there are none.
    attention: operations of attention, which `operations` leaves out.
    """

    side: str
    kind: str
    clip: str
    fingerprint: str
    placement: str | None = None
    tile_px: int | None = None
    budget_bytes: int | None = None
    tiles: int | None = None
    projected_bytes: int | None = None
    peak_bytes: int | None = None
    operations: int | None = None
    moved_bytes: int | None = None
    failure: str | None = None
    attention: int | None = None
    family: str = "cogvideox"

    @property
    def key(self) -> tuple:
        """What makes it another row."""
        asked = (self.placement, self.tile_px, self.budget_bytes)
        return (self.family, self.clip, self.kind, self.side, *asked)


@lru_cache(maxsize=2)
def _engine_fingerprint(family: str) -> str:
    digest = hashlib.sha256(torch.__version__.encode())
    for name in (*DECIDING, FAMILIES[family].code):
        path = ROOT / "vae_core" / name
        files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def fingerprint(side: Side, family: str) -> str:
    """The code that a side's figures describe."""
    if isinstance(side, Ours):
        return _engine_fingerprint(family)
    if isinstance(side, Diffusers):
        return f"diffusers {diffusers.__version__}, torch {torch.__version__}"
    return "ComfyUI " + core_version()


def core_version() -> str:
    """The version that COMFYUI_PATH holds."""
    path = Path(os.environ.get("COMFYUI_PATH", ""), "comfyui_version.py")
    text = path.read_text(encoding="utf-8") if path.is_file() else '"unknown"'
    return text.rsplit('"', 2)[1]


def asked_for(case: Case) -> Row:
    """The row of a case with nothing in it but what was asked for."""
    side = case.side
    asked = {"fingerprint": fingerprint(side, case.family), "family": case.family}
    row = Row(side.name, case.kind, str(case.clip), **asked)
    if not isinstance(side, Ours):
        return row
    return replace(
        row, placement=side.placement, tile_px=side.tile_px, budget_bytes=side.budget_bytes
    )


def key_of(case: Case) -> tuple:
    """The key of a case's row; planned only where the plan chooses the placement."""
    chosen = isinstance(case.side, Ours) and case.side.placement == "auto"
    return (projected if chosen else asked_for)(case).key


def projected(case: Case) -> Row:
    """The row before anything is run; a peer's holds no figures."""
    side, row = case.side, asked_for(case)
    if not isinstance(side, Ours):
        return row
    plan = side.plan(case.kind, case.clip, case.family)
    attention = attention_operations(plan)
    return replace(
        row,
        placement=row.placement if row.placement != "auto" else f"auto: {plan.placement.value}",
        tiles=plan.tile_count(),
        projected_bytes=plan.peak_bytes,
        operations=plan.operations - attention,
        attention=attention,
        moved_bytes=plan.moved_bytes,
    )


def measured(case: Case) -> Row:
    """The row of a case, counted."""
    row = projected(case)
    try:
        found = case.side.count(case.kind, case.clip, case.family)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        return replace(row, operations=None, moved_bytes=None, attention=None, failure=reason)
    return replace(row, **asdict(found))


def section(name: str) -> list[dict]:
    """One section of the file; empty where there is none."""
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    return stored.get(name, [])


def load() -> dict[tuple, Row]:
    """The counted rows that are kept."""
    return {row.key: row for row in (Row(**fields) for fields in section("counted"))}


def save(section: str, rows: Iterable[dict]) -> None:
    """Replace one section of the file."""
    STORED.parent.mkdir(exist_ok=True)
    kept = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    kept[section] = list(rows)
    STORED.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def collect(cases: list[Case], jobs: int, fresh: bool) -> dict[tuple, Row]:
    """The rows of `cases`; those that are kept and still hold are not counted again.

    Where core's code is not at hand, its rows are those that are kept.
    """
    rows = load()
    counted = [case for case in cases if not (isinstance(case.side, Core) and core.missing())]
    missing = [case for case in counted if fresh or not _holds(rows, case)]
    for done, row in enumerate(_run(missing, jobs), start=1):
        what = f"{row.family} {row.clip} {row.kind} {row.side}"
        print(f"counted {done} of {len(missing)}: {what}", flush=True)
        rows[row.key] = row
        _keep(rows)
    keys = dict.fromkeys(key_of(case) for case in cases)
    return {key: rows[key] for key in keys if key in rows}


def fill(cases: list[Case]) -> None:
    """Keep what plans say of our cases that have never been counted."""
    rows = load()
    for row in (projected(case) for case in cases if isinstance(case.side, Ours)):
        known = rows.get(row.key)
        if known is None or known.peak_bytes is None:
            rows[row.key] = row
    _keep(rows)


def _keep(rows: dict[tuple, Row]) -> None:
    save("counted", (asdict(row) for _, row in sorted(rows.items(), key=_order)))


def _order(item: tuple[tuple, Row]) -> tuple:
    return item[1].family, Clip.parse(item[1].clip), *map(str, item[0])


def _holds(rows: dict[tuple, Row], case: Case) -> bool:
    row = rows.get(key_of(case))
    if row is None or row.fingerprint != fingerprint(case.side, case.family):
        return False
    return row.peak_bytes is not None or row.failure is not None


def _run(cases: list[Case], jobs: int) -> Iterator[Row]:
    if jobs == 1:
        yield from map(measured, cases)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measured, case) for case in cases]):
            yield future.result()
