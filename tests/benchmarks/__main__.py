"""What do exact tiles cost, and what do the peers?

    python tests/benchmarks             count every side on every clip; tables, limits, plots
    python tests/benchmarks --quick     check counted limits on cheap shapes; exit 1 if one fails
    python tests/benchmarks --time      seconds on this processor, in turns

1. Counting needs no accelerator and computes nothing. Rows are kept in docs/benchmarks.json and
   counted anew when the code that they describe has changed.
2. docs/benchmarks.md holds the tables, docs/memory_*.png the plots (they need matplotlib, see
   requirements.txt).
3. COMFYUI_PATH and COMFYUI_PYTHON add ComfyUI core's own class.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

if not __package__:  # run as a folder: `benchmarks` and its neighbours are found in tests/
    folder = Path(__file__).resolve().parent
    if Path(sys.path[0]).resolve() == folder:  # which it is not under -P
        del sys.path[0]
    sys.path.insert(0, str(folder.parent))

from benchmarks import cases, core, limits, plots, rewriting, rows, table, timing
from benchmarks.clips import Clip
from benchmarks.families import FAMILIES
from benchmarks.quick import quick_limits

TIMED_CLIPS = {
    "cogvideox": (Clip(9, 128, 192), Clip(9, 240, 360)),
    "wan": (Clip(9, 240, 416),),
    "wan22": (Clip(9, 192, 256),),
    "hunyuan": (Clip(5, 128, 192),),
    "hunyuan15": (Clip(5, 128, 192),),
    "seedvr2": (Clip(9, 192, 256),),
    "mochi": (Clip(7, 128, 192),),
    "ltx": (Clip(17, 512, 768),),
}


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="check limits on cheap shapes")
    mode.add_argument("--time", action="store_true", help="measure seconds in place of counting")
    mode.add_argument("--report", action="store_true", help="print what is kept; count nothing")
    mode.add_argument(
        "--project", action="store_true", help="as --report, and plans where no count is kept"
    )
    mode.add_argument("--resident", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--clip", nargs="+", type=Clip.parse, help="e.g. 49x480x720")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=tuple(FAMILIES))
    parser.add_argument("--kind", nargs="+", choices=cases.KINDS, default=cases.KINDS)
    parser.add_argument("--ours", nargs="+", choices=timing.SETTINGS)
    parser.add_argument("--rounds", type=int, default=5, help="of timing, after one to warm up")
    parser.add_argument("--jobs", type=int, default=1, help="processes that count")
    parser.add_argument(
        "--seconds-only", action="store_true", help="time no bare convolutions, and no memory"
    )
    parser.add_argument("--dry", action="store_true", help="keep no timed rows")
    parser.add_argument("--fresh", action="store_true", help="count kept rows too")
    return parser.parse_args(argv)


def _verdict(found: Iterable[limits.Limit]) -> int:
    """Prints every limit; 1 where one is not met."""
    failed = 0
    for limit in found:
        print(limit, flush=True)
        failed += not limit.met
    print(f"{failed} limits not met" if failed else "all limits met")
    return int(failed > 0)


def _count(arguments: argparse.Namespace) -> int:
    """Rows, tables, limits and plots."""
    wanted = []
    for family in arguments.family:
        wanted += cases.table_cases(family, tuple(arguments.clip or ()))
        wanted += () if arguments.clip else cases.plot_cases(family)
    wanted = [case for case in dict.fromkeys(wanted) if case.kind in arguments.kind]
    found = rows.collect(wanted, arguments.jobs, arguments.fresh)
    if core.missing():
        print(core.missing())
    kept = rows.load()
    _report(list(kept.values()))
    if not arguments.clip:
        _plot(kept)
    return _verdict(chain(*(limits.of_rows(found, family) for family in arguments.family)))


def _report(found: list[rows.Row]) -> None:
    """Prints the tables and writes them down, with the timed ones that are kept."""
    parts = ["# Benchmarks", "Printed by `python tests/benchmarks`.", "## Counted"]
    parts.append(f"{table.COUNTED_TITLE}\n\n{table.versions()}")
    for family in FAMILIES.values():
        if any(row.family == family.name for row in found):
            parts.append(f"## Counted: {family.title}")
            parts.append(table.counted_report(found, family.name))
    parts.append(f"## Rewrites, {rewriting.CLIP}")
    for kind in cases.KINDS:
        parts.append(f"### {kind}\n\n{table.rewrite_table(rewriting.rewrite_rows(kind))}")
    parts.append(f"## Rewrites, one frame: {rewriting.STILL}")
    for kind in cases.KINDS:
        parts.append(f"### {kind}\n\n{table.rewrite_table(rewriting.still_rows(kind))}")
    for family in FAMILIES.values():
        timed = [row for row in rows.section("timed") if _family(row) == family.name]
        if timed:
            parts += [f"## Timed: {family.title}", table.timed_report(timed, family.width)]
    text = "\n\n".join(parts) + "\n"
    print(text)
    (rows.ROOT / "docs" / "benchmarks.md").write_text(text, encoding="utf-8")


def _plot(found: dict[tuple, rows.Row]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("left out: plots; they need tests/benchmarks/requirements.txt")
        return
    for path in plots.draw_all(found):
        print(f"drawn: {path.relative_to(rows.ROOT)}")


def _time(arguments: argparse.Namespace) -> int:
    """Timed rows of each clip, kept and printed."""
    kept = {_timed_key(row): row for row in rows.section("timed")}
    for family in arguments.family:
        for clip in arguments.clip or TIMED_CLIPS[family]:
            for kind in arguments.kind:
                what = timing.Subject(family, kind, clip)
                ours = arguments.ours or timing.OURS[family]
                figures = arguments.rounds, ours, not arguments.seconds_only
                for row in timing.time_clip(what, *figures):
                    row["machine"] = table.processor()
                    kept[_timed_key(row)] = row
                if not arguments.dry:
                    rows.save("timed", kept.values())
        found = [row for row in kept.values() if _family(row) == family]
        print(table.timed_report(found, FAMILIES[family].width))
    return _verdict(chain(*(limits.of_times(kept.values(), each) for each in arguments.family)))


def _family(row: dict) -> str:
    return row.get("family", "cogvideox")


def _timed_key(row: dict) -> tuple[str, ...]:
    return _family(row), row["clip"], row["kind"], row["side"]


def main(argv: list[str] | None = None) -> int:
    """The exit code: 1 where a limit is not met."""
    arguments = _arguments(argv)
    if arguments.resident:
        side, family, kind, clip = arguments.resident
        print(timing.resident_here(side, timing.Subject(family, kind, Clip.parse(clip))))
        return 0
    if arguments.quick:
        return _verdict(chain(*map(quick_limits, arguments.family)))
    if arguments.time:
        return _time(arguments)
    if arguments.project:
        for family in arguments.family:
            rows.fill([*cases.table_cases(family), *cases.plot_cases(family)])
    if arguments.report or arguments.project:
        kept = rows.load()
        _report(list(kept.values()))
        _plot(kept)
        return 0
    return _count(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
