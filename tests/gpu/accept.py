"""Is this graphics card good enough for the engine, and the engine for it?

    ./run gpu a            exactness and safety
    ./run gpu b            memory
    ./run gpu c            time, beside diffusers
    ./run gpu a --json docs/gpu-a.json

1. Each part takes at most nine minutes. It needs torch 2.4 or newer, numpy, safetensors, psutil and
   diffusers with its own needs; no network, and nothing that reads videos.
2. Every check is a row: what was measured, what it has to be, and whether it is so. The rows go out
   as a table, and into a file as JSON. The exit code is 1 where one failed.
3. `--stand-in` runs the same checks where there is no card, with narrow networks. What nothing can
   stand in for says that it needs a card, and has neither passed nor failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":  # `./run gpu`: neither this folder's modules nor the root's are found
    TESTS = Path(__file__).resolve().parent.parent
    sys.path[0] = str(TESTS)
    sys.path.append(str(TESTS.parent))

import torch
from played_card import Library

from gpu import budgets, exactness, speed
from gpu.rigs import Bench, CardRig, shapes_in_place, values_in_place
from gpu.sheet import HEAD, PART_SECONDS, Sheet, line
from vae_core.running import machines, probe_file

PARTS = {"a": exactness.CHECKS, "b": budgets.CHECKS, "c": speed.CHECKS}
PROBE_SIZES = (2**12, 2**14)
"""Of what a stand-in's probe convolves, in bytes."""


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="./run gpu", description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=PARTS, help="a: exactness, b: memory, c: time")
    parser.add_argument("--json", type=Path, help="the file for the rows, default in $OUT or docs/")
    parser.add_argument("--stand-in", action="store_true", help="without a card")
    names = sorted({name for checks in PARTS.values() for name in checks})
    parser.add_argument("--only", action="append", choices=names, help="one check; again for more")
    parser.add_argument(
        "--seconds", type=float, default=PART_SECONDS - 60, help="after which no check starts"
    )
    return parser.parse_args(given)


def json_path(args: argparse.Namespace) -> Path:
    """Where the rows go."""
    if args.json:
        return args.json
    usual = "out" if args.stand_in else "docs"  # of no card there is nothing to tell others
    folder = Path(os.environ.get("OUT") or Path(__file__).resolve().parents[2] / usual)
    return folder / f"gpu-{'stand-in-' if args.stand_in else ''}{args.part}.json"


def facts(bench: Bench) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        **{k: v for k, v in bench.values.facts(torch.bfloat16).items() if k != "dtype"},
    }
    return {**found, **copy_rates(bench.values.device)} if bench.is_card else found


def copy_rates(device: torch.device) -> dict[str, float]:
    """GB/s of copies of 256 MiB, and TFLOP/s of a product of matrices."""
    size = 2**28
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    there, other = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)

    def rate(work: Any, amount: float) -> float:
        work()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(4):
            work()
        torch.cuda.synchronize()
        return round(4 * amount / (time.perf_counter() - start), 1)

    return {
        "to the card, GB/s": rate(lambda: there.copy_(pinned, non_blocking=True), size / 1e9),
        "from the card, GB/s": rate(lambda: pinned.copy_(there, non_blocking=True), size / 1e9),
        "on the card, GB/s": rate(lambda: other.copy_(there), 2 * size / 1e9),
        "bfloat16 products, TFLOP/s": rate(lambda: square @ square, 2 * 8192**3 / 1e12),
    }


@contextmanager
def benches(stand_in: bool, library: Library | None = None) -> Iterator[Any]:
    """What the checks run on; library: of what plays the card."""
    with tempfile.TemporaryDirectory() as folder:
        probe_file.keep_in(folder)  # so that every probe is a new one, and the user's stays
        machines.forget()
        try:
            if stand_in:
                yield StandIns(library or Library())
            else:
                card = CardRig()
                yield lambda check: contextlib.nullcontext(Bench(card, card))
        finally:
            probe_file.keep_in(None)
            machines.forget()


class StandIns:
    """The two stand-ins, of which one at a time is in place."""

    def __init__(self, library: Library) -> None:
        self.library = library

    @contextmanager
    def __call__(self, check: Any) -> Iterator[Bench]:
        """The bench for a check: of shapes where it asks for these, else of values."""
        of_shapes = check in _OF_SHAPES
        with patch("vae_core.running.probe.SIZES_BYTES", PROBE_SIZES):
            place = shapes_in_place if of_shapes else values_in_place
            with place(self.library) as rig:
                yield Bench(rig, rig)


_OF_SHAPES = (
    budgets.peaks,
    budgets.far_weights,
    budgets.budgets,
    budgets.leaks,
    speed.operations,
)


def found(args: argparse.Namespace, library: Library | None) -> Sheet:
    """All rows of a part, printed as they come."""
    checks = {k: v for k, v in PARTS[args.part].items() if not args.only or k in args.only}
    with benches(args.stand_in, library) as bench_for:
        with bench_for(None) as bench:
            sheet = Sheet(args.part, {**facts(bench), "stand-in": args.stand_in})
        print(json.dumps(sheet.facts, indent=1), HEAD, sep="\n\n", flush=True)
        for row in sheet.run(checks, bench_for, args.seconds):
            print(line(row), flush=True)
    return sheet


def main(given: Sequence[str], library: Library | None = None) -> int:
    """0 where nothing failed, 1 where something did, 2 where there is nothing to run on."""
    if exactness.CHILD in given:
        with benches(stand_in=False) as bench_for, bench_for(None) as bench:
            print(exactness.digest(bench.values))
        return 0
    args = arguments(given)
    if not args.stand_in and not torch.cuda.is_available():
        print("There is no CUDA or ROCm card here. --stand-in plays one.", file=sys.stderr)
        return 2
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # it says at each cast that it is one
    sheet = found(args, library)
    path = json_path(args)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sheet.as_dict(), indent=1) + "\n", encoding="utf-8")
    failed = sum(row.passed is False for row in sheet.rows)
    untested = sum(row.passed is None for row in sheet.rows)
    passed = len(sheet.rows) - failed - untested
    print(f"\n{passed} passed, {failed} failed, {untested} not tested, in {path}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
