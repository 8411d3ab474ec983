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
    "projected / counted",
    "TFLOP",
    "of {peer}",
    "moved GiB",
)

ATTENTION_HEAD = ("attention TFLOP", "of {peer}")

PEERS = {"cogvideox": "diffusers untiled"}
"""Whose arithmetic a family's is compared with, where it is not core's."""


def _figure(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _ratio(value: float | None, base: float | None, digits: int = 2) -> str:
    return f"{value / base:.{digits}f}" if value and base else "-"


def _cells(row: Row, untiled: dict[tuple[str, str], Row], attends: bool) -> list[str]:
    whole = untiled.get((row.clip, row.kind))
    attention = [
        _figure(row.attention, TERA, 1),
        _ratio(row.attention, whole.attention if whole else None, 3),
    ]
    return [
        row.clip,
        row.side,
        row.placement or "-",
        str(row.tile_px or ("planner" if row.placement else "-")),
        _figure(row.budget_bytes, GIB, 0) + (" GiB" if row.budget_bytes else ""),
        str(row.tiles or "-"),
        _figure(row.projected_bytes, GIB, 2),
        "fails" if row.failure else _figure(row.peak_bytes, GIB, 2),
        _ratio(row.projected_bytes, row.peak_bytes),
        _figure(row.operations, TERA, 0),
        _ratio(row.operations, whole.operations if whole else None, 3 if attends else 2),
        _figure(row.moved_bytes, GIB, 1),
        *(attention if attends else ()),
    ]


def counted_table(rows: Iterable[Row], kind: str, family: str) -> str:
    """All rows of one kind."""
    chosen = sorted((row for row in rows if row.kind == kind), key=_order)
    peer, attends = PEERS.get(family, "ComfyUI core"), any(row.attention for row in chosen)
    untiled = {(row.clip, row.kind): row for row in chosen if row.side == peer}
    names = (*COUNTED_HEAD, *(ATTENTION_HEAD if attends else ()))
    head = [name.format(peer="untiled" if peer.endswith("untiled") else "core") for name in names]
    table = markdown(head, (_cells(row, untiled, attends) for row in chosen))
    reasons = [f"- {row.side}, {row.clip}: {row.failure}" for row in chosen if row.failure]
    return "\n".join([table, *(["", "What fails, and how:", "", *reasons] if reasons else [])])


def _order(row: Row) -> tuple:
    ours = row.side == "ours"
    return Clip.parse(row.clip), ours, row.side, row.placement or "", row.tile_px or 0


COUNTED_TITLE = """\
Counted at the dispatcher in FakeTensorMode; `meta` plays the accelerator and `cpu` the host, tiles
are planned for 256 MiB of workspace. bfloat16, full-size network, batch 1, exact tiles, chunks of
8 sample frames and statistics over a chunk, or chunks of up to 8 where none are taken. GiB: device
memory at its peak; weights and libraries' workspace left out on all sides, a peer's own input and
result, which it holds on the device, counted. TFLOP: of all convolutions, attention apart; one in a
single call counts with its result alone. Moved: between device and host, both ways."""


def counted_report(rows: Iterable[Row], family: str) -> str:
    """A table each for encode and decode."""
    kept = [row for row in rows if row.family == family]
    kinds = [kind for kind in ("encode", "decode") if any(row.kind == kind for row in kept)]
    parts = [f"### {kind}\n\n{counted_table(kept, kind, family)}" for kind in kinds]
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


_OF = {
    "of_whole": "of untiled",
    "of_quarters": "of 2x2 tiles",
    "of_core": "of core",
    "of_core_tiled": "of core tiled",
    "of_bare": "of bare convolutions",
}
"""Ratios of medians, and their names; only those that some row has are shown."""

TIMED_HEAD = (
    "clip",
    "side",
    "placement",
    "tiles",
    "projected GiB",
    "resident GiB",
    "seconds (fastest to slowest)",
)


def _timed_cells(row: dict, ratios: list[str]) -> list[str]:
    seconds = f"{row['seconds']:.2f} ({row['fastest']:.2f} to {row['slowest']:.2f})"
    return [
        row["clip"],
        row["side"],
        row["placement"] or "-",
        str(row["tiles"] or "-"),
        _figure(row["projected_bytes"], GIB, 2),
        _figure(row["resident_bytes"], GIB, 2),
        seconds,
        *(f"{row[name]:.2f}" if row.get(name) else "-" for name in ratios),
        "another shape" if row["error"] is None else f"{row['error']:.1e}",
    ]


def timed_report(rows: list[dict], width: str | None = None) -> str:
    """Title, versions and a table each for encode and decode; width: of the network, where it is
    not the published one's.
    """
    first = rows[0]
    size = f"{width} and full-depth" if width else "full-size"
    title = (
        f"Timed on {first['machine']}, {first['threads']} threads, float32,"
        f" {size} network with random weights, no budget; {versions()}. Warm-up 1,"
        f" median of {first['rounds']}, sides taking turns in one process, ComfyUI core in its"
        " own. Resident: of a process of its own, weights included. Error: the largest, over the"
        " range of the untiled result."
    )
    parts, ratios = [title], [name for name in _OF if any(row.get(name) for row in rows)]
    head = (*TIMED_HEAD, *map(_OF.get, ratios), "error against whole")
    for kind in ("encode", "decode"):
        body = [_timed_cells(row, ratios) for row in rows if row["kind"] == kind]
        parts.append(f"### {kind}\n\n{markdown(head, body)}")
    return "\n\n".join(parts)


def processor() -> str:
    """The processor's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
