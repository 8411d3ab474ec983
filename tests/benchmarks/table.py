"""How do rows read as a table?"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import diffusers
import torch

from .clips import Clip
from .rows import Row

GIB, TERA = 2**30, 1e12


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up."""
    lines = [list(head), *(list(cells) for cells in body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    padded = (
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [lines[0], rule, *lines[1:]]
    )
    return "\n".join(f"| {line} |" for line in padded)


def versions() -> str:
    """What the figures depend on."""
    return (
        f"torch {torch.__version__}, diffusers {diffusers.__version__}, Python"
        f" {platform.python_version()}"
    )


COUNTED_HEAD = (
    "clip",
    "side",
    "placement",
    "tile px",
    "budget",
    "tiles",
    "projected GiB",
    "counted GiB",
    "TFLOP",
    "of untiled",
    "moved GiB",
)


def _figure(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _cells(row: Row, untiled: dict[tuple[str, str], Row]) -> list[str]:
    whole = untiled.get((row.clip, row.kind))
    base = whole.operations if whole else None
    return [
        row.clip,
        row.side,
        row.placement or "-",
        str(row.tile_px or ("planner" if row.placement else "-")),
        _figure(row.budget_bytes, GIB, 0) + (" GiB" if row.budget_bytes else ""),
        str(row.tiles or "-"),
        _figure(row.projected_bytes, GIB, 2),
        "fails" if row.failure else _figure(row.peak_bytes, GIB, 2),
        _figure(row.operations, TERA, 0),
        f"{row.operations / base:.2f}" if row.operations and base else "-",
        _figure(row.moved_bytes, GIB, 1),
    ]


def counted_table(rows: Iterable[Row], kind: str) -> str:
    """All rows of one kind."""
    chosen = sorted((row for row in rows if row.kind == kind), key=_order)
    untiled = {(row.clip, row.kind): row for row in chosen if row.side == "diffusers untiled"}
    table = markdown(COUNTED_HEAD, (_cells(row, untiled) for row in chosen))
    reasons = [f"- {row.side}, {row.clip}: {row.failure}" for row in chosen if row.failure]
    return "\n".join([table, *(["", "What fails, and how:", "", *reasons] if reasons else [])])


def _order(row: Row) -> tuple:
    ours = row.side == "ours"
    return Clip.parse(row.clip), ours, row.side, row.placement or "", row.tile_px or 0


COUNTED_TITLE = """\
Counted at the dispatcher in FakeTensorMode; `meta` plays the accelerator and `cpu` the host, tiles
are planned for 256 MiB of workspace. bfloat16, full-size network, batch 1, exact tiles, chunks of
8 sample frames, statistics over a chunk. GiB: device memory at its peak; weights and libraries'
workspace left out on all sides, a peer's own input and result, which it holds on the device,
counted. TFLOP: of all convolutions. Moved: between device and host, both ways."""


def counted_report(rows: Iterable[Row]) -> str:
    """Title, versions and a table each for encode and decode."""
    kept = list(rows)
    parts = [f"{COUNTED_TITLE}\n\n{versions()}"]
    parts += [f"### {kind}\n\n{counted_table(kept, kind)}" for kind in ("encode", "decode")]
    return "\n\n".join(parts)


def rewrite_table(rows: Iterable[tuple[str, int, int]]) -> str:
    """What `rewriting.rewrite_rows` says."""
    kept = list(rows)
    base = kept[0][1]
    body = (
        (what, _figure(operations, TERA, 1), f"{operations / base:.3f}", _figure(peak, GIB, 2))
        for what, operations, peak in kept
    )
    return markdown(("program", "TFLOP", "of untiled", "GiB, all on the device"), body)


TIMED_HEAD = (
    "clip",
    "side",
    "placement",
    "tiles",
    "projected GiB",
    "resident GiB",
    "seconds (fastest to slowest)",
    "of untiled",
    "of 2x2 tiles",
    "of bare convolutions",
    "error against whole",
)


def _timed_cells(row: dict) -> list[str]:
    seconds = f"{row['seconds']:.2f} ({row['fastest']:.2f} to {row['slowest']:.2f})"
    return [
        row["clip"],
        row["side"],
        row["placement"] or "-",
        str(row["tiles"] or "-"),
        _figure(row["projected_bytes"], GIB, 2),
        _figure(row["resident_bytes"], GIB, 2),
        seconds,
        *(
            f"{row[name]:.2f}" if row[name] else "-"
            for name in ("of_whole", "of_quarters", "of_bare")
        ),
        "another shape" if row["error"] is None else f"{row['error']:.1e}",
    ]


def timed_report(rows: list[dict]) -> str:
    """Title, versions and a table each for encode and decode."""
    first = rows[0]
    title = (
        f"Timed on {first['machine']}, {first['threads']} threads, float32, full-size network with"
        f" random weights, no budget; {versions()}. Warm-up 1, median of {first['rounds']}, sides"
        " taking turns in one process. Resident: of a process of its own, weights included. Error:"
        " the largest, over the range of the untiled result."
    )
    parts = [title]
    for kind in ("encode", "decode"):
        body = [_timed_cells(row) for row in rows if row["kind"] == kind]
        parts.append(f"### {kind}\n\n{markdown(TIMED_HEAD, body)}")
    return "\n\n".join(parts)


def processor() -> str:
    """The processor's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
