"""Part A: is what a card computes right, the same every time, and safe?"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.counting import CONVOLUTIONS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import Settings
from vae_core.planning.classes import classes_of
from vae_core.planning.routes import best
from vae_core.running import kernels, machines, probe_file
from vae_core.running.tile import TileRunner
from vae_core.running.tolerance import tolerance

from .rigs import Bench, Rig, plan_of, run_of
from .sheet import Row, at_most, needs_card

KINDS = ("encode", "decode")
FAMILIES = ("cogvideox", "wan")
"""Those whose runs on a card have bounds."""

HALVES = (torch.bfloat16, torch.float16)


def _name(*parts: object) -> str:
    return " ".join(str(part).removeprefix("torch.") for part in parts)


def _each() -> Iterator[tuple[str, str]]:
    return itertools.product(FAMILIES, KINDS)


# The probe


def routes(bench: Bench) -> Iterator[Row]:
    """Every class of convolutions has a route that is right, and what it does is written down."""
    rig = bench.values
    for family, kind in _each():
        for dtype in rig.dtypes:
            vae = rig.vae(family, dtype)
            plan = plan_of(vae, kind, rig.source(vae, kind, rig.small), Settings())
            kinds = classes_of(plan.job.program)
            table = machines.known_table(rig.device, dtype)
            assert table
            case = _name(family, kind, dtype)
            words = table.impossible(kinds) or plan.libraries.route_words
            tried = all(one in table.found for one in kinds)
            yield Row("routes", case, words, "all right", tried and not table.impossible(kinds))
            chosen = [best(table.found.get(one, ())) for one in kinds]
            errors = [one.error for one in chosen if one and one.error is not None]
            worst = max(errors, default=float("inf"))
            yield at_most("error of routes, of range", case, worst, tolerance(dtype))


def slowness(bench: Bench) -> Iterator[Row]:
    """The chosen routes are not slower than others that are right."""
    if not bench.is_card:
        yield needs_card("slowness of routes", "", "<= 1.25 of the quickest")
        return
    for dtype in bench.values.dtypes:
        table = machines.known_table(bench.values.device, dtype)
        assert table
        chosen = quickest = 0.0
        for findings in table.found.values():
            taken = best(findings)
            if taken:
                chosen += taken.seconds
                quickest += min(one.seconds for one in findings if one.right)
        yield at_most("slowness of routes", _name(dtype), chosen / max(quickest, 1e-9), 1.25)


class _Backends(TorchDispatchMode):
    """Which backend torch takes for the convolutions of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in CONVOLUTIONS:
            x, weight = args[:2]
            stride = args[3] if len(args) > 3 else kwargs.get("stride", [1] * 3)
            sides = x.ndim - 2
            zeros, ones = [0] * sides, [1] * sides
            backend = torch._C._select_conv_backend(
                x, weight, None, list(stride), zeros, ones, False, zeros, 1
            )
            self.found[backend.name] += 1
        return func(*args, **kwargs)


def backends(bench: Bench) -> Iterator[Row]:
    """No convolution misses the library for one that copies its input for every tap."""
    for family, kind in _each():
        for dtype in HALVES:
            case = _name(family, kind, dtype)
            if not bench.is_card:
                yield needs_card("backends", case, "Cudnn or Miopen")
                continue
            rig, vae = bench.values, bench.values.vae(family, dtype)
            x = rig.source(vae, kind, rig.small)
            with torch.inference_mode(), _Backends() as seen:
                run_of(vae, kind, x, Settings(placement="device"))()
            good = all(name.startswith(("Cudnn", "Miopen")) for name in seen.found)
            yield Row("backends", case, dict(seen.found), "Cudnn or Miopen", good)


# The laws

PLACEMENTS = ("device", "caches-on-host", "host", "mmap")


@contextmanager
def _exact_products() -> Iterator[None]:
    """TF32 off inside the block."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _apart(found: Tensor, wanted: Tensor) -> float:
    wanted = wanted.double()
    reach = (wanted.max() - wanted.min()).item()
    return (found.double() - wanted).abs().max().item() / reach


def _cases() -> Iterator[dict[str, Any]]:
    for placement, tile, chunk in itertools.product(PLACEMENTS, (48, None), (4, 8)):
        yield {"placement": placement, "tile_px": tile, "chunk_frames": chunk}
    yield {"placement": "device", "tile_px": 16, "chunk_frames": 8}


def law(bench: Bench) -> Iterator[Row]:
    """Tiles, chunks and places change nothing: the result is diffusers' untiled one."""
    rig = bench.values
    for family, kind in _each():
        module = rig.module(family, torch.float64)
        vae = rig.vae(family, torch.float64)
        x = rig.source(vae, kind, rig.small)
        wanted = {
            chunk: rig.untiled(family, kind, module, x.to(rig.device), chunk).cpu()
            for chunk in (4, 8)
        }
        yield _worst(rig, family, kind, torch.float64, 1e-9, wanted)
        with _exact_products():
            yield _worst(rig, family, kind, torch.float32, 1e-4, wanted)
        if bench.is_card:
            yield _worst(rig, family, kind, torch.float32, 3e-3, wanted, " with TF32")


def _worst(
    rig: Rig, family: str, kind: str, dtype: torch.dtype, limit: float, wanted: dict, also=""
) -> Row:
    vae = rig.vae(family, dtype)
    x = rig.source(rig.vae(family, torch.float64), kind, rig.small).to(dtype)
    errors: list[tuple[float, str]] = []
    for case in _cases():
        found = run_of(vae, kind, x, Settings(**case))()
        errors.append((_apart(found, wanted[case["chunk_frames"]]), str(case)))
    worst, where = max(errors)
    return at_most(
        "tile law, of range", _name(family, kind, dtype) + also, worst, limit, f"worst at {where}"
    )


def rounding(bench: Bench) -> Iterator[Row]:
    """In 16 bits the error is no larger than diffusers' own."""
    rig = bench.values
    for family, kind in _each():
        exact = rig.module(family, torch.float64)
        x = rig.source(rig.vae(family, torch.float64), kind, rig.rounded)
        wanted = rig.untiled(family, kind, exact, x.to(rig.device), 8).cpu()
        for dtype in HALVES:
            module, vae = rig.module(family, dtype), rig.vae(family, dtype)
            theirs = rig.untiled(family, kind, module, x.to(rig.device, dtype), 8).cpu()
            ours = run_of(vae, kind, x.to(dtype), Settings(tile_px=48))()
            ratio = _rms(ours, wanted) / _rms(theirs, wanted)
            yield at_most("error beside diffusers'", _name(family, kind, dtype), ratio, 1.25)


def _rms(found: Tensor, wanted: Tensor) -> float:
    return (found.double() - wanted.double()).square().mean().sqrt().item()


def repeated(bench: Bench) -> Iterator[Row]:
    """The same run twice gives the same bits."""
    rig = bench.values
    for family, kind in _each():
        vae = rig.vae(family, torch.float32)
        x = rig.source(vae, kind, rig.small)
        for placement in ("device", "host"):
            run = run_of(vae, kind, x, Settings(placement=placement, tile_px=48))
            same = torch.equal(run(), run())
            yield Row("same bits twice", _name(family, kind, placement), same, "the same", same)


# Failures


class _Failing:
    """A function whose call number `number` fails, once."""

    def __init__(self, original: Callable[..., Any], number: int, message: str) -> None:
        self.original, self.number, self.message, self.calls = original, number, message, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.number:
            raise RuntimeError(self.message)
        return self.original(*args, **kwargs)


MESSAGES = (
    "CUDA out of memory",
    "GET was unable to find an engine to execute this computation",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
)


def failures(bench: Bench) -> Iterator[Row]:
    """A convolution for which memory runs out, once, changes nothing."""
    rig = bench.values
    for family in FAMILIES:
        vae = rig.vae(family, torch.float32)
        x = rig.source(vae, "decode", rig.small)
        run = run_of(vae, "decode", x, Settings(tile_px=48))
        wanted = run()
        for number, message in zip((1, 7, 20), MESSAGES, strict=True):
            failing = _Failing(kernels.convolution, number, message)
            with patch("vae_core.running.phases.convolution", failing):
                found = run()
            case = _name(family, f"call {number}: {message[:40]}")
            row = at_most("survived failures, of range", case, _apart(found, wanted), 3e-3)
            yield (
                row if failing.calls >= number else Row(row.check, case, "no call", "fails", False)
            )


def probe_files(bench: Bench) -> Iterator[Row]:
    """A probe file that is damaged, or cannot be written, stops no run."""
    rig = bench.values
    vae = rig.vae("cogvideox", torch.float32)
    x = rig.source(vae, "decode", rig.small)
    run = run_of(vae, "decode", x, Settings())
    wanted, kept = run(), probe_file._Kept.folder
    with tempfile.TemporaryDirectory() as folder:
        blocked = Path(folder) / "a file"
        blocked.write_text("no folder")
        for case, place in (("damaged", Path(folder)), ("no folder", blocked)):
            probe_file.keep_in(place)
            machines.forget()
            facts = rig.facts(vae.dtype)
            path = probe_file.path_for(facts)
            if case == "damaged" and path:
                path.write_text('{"format": 1, "classes": [')
            error = _apart(run(), wanted)
            yield at_most("probe file, of range", case, error, 3e-3)
    probe_file.keep_in(kept)
    machines.forget()


# Races

CHILD = "--child"


def digest(rig: Rig) -> str:
    """A run that copies all the time, as the bits of its result."""
    vae = rig.vae("cogvideox", torch.bfloat16)
    x = rig.source(vae, "decode", (9, 64, 96))
    found = run_of(vae, "decode", x, Settings(placement="host", tile_px=48))()
    return sha256(found.view(torch.int16).numpy().tobytes()).hexdigest()


def races(bench: Bench) -> Iterator[Row]:
    """No stream reads what another one still writes, whichever allocator there is."""
    ways = {
        "the sanitizer": {"TORCH_CUDA_SANITIZER": "1"},
        "one launch at a time": {"CUDA_LAUNCH_BLOCKING": "1"},
        "the asynchronous allocator": {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
        "the native allocator": {"PYTORCH_CUDA_ALLOC_CONF": "backend:native"},
    }
    if not bench.is_card:
        for way in ways:
            yield needs_card("races", way, "the same bits, nothing reported")
        yield needs_card("races", "delays on every stream", "the same bits")
        return
    plain = _child({})[0]
    for way, variables in ways.items():
        found, said = _child(variables)
        good = bool(found) and found == plain and "race" not in said.lower()
        measured = "the same" if good else said[-200:] or "other bits"
        yield Row("races", way, measured, "the same bits, nothing reported", good)
    yield from _delays(bench.values)


def _child(variables: dict[str, str]) -> tuple[str, str]:
    """What a process of its own computes, and what it says."""
    script = Path(__file__).with_name("accept.py")
    done = subprocess.run(
        [sys.executable, str(script), CHILD],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
        timeout=150,
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "", done.stderr


class _Delays(TorchDispatchMode):
    """Lets the stream of every few operations wait, now longer, now shorter."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._count += 1
        if self._count % 3 == 0:
            torch.cuda._sleep(1000 * (self._count * 7919 % 97))
        return func(*args, **(kwargs or {}))


def _delays(rig: Rig) -> Iterator[Row]:
    for family in FAMILIES:
        vae = rig.vae(family, torch.bfloat16)
        x = rig.source(vae, "decode", (9, 64, 96))
        for placement in ("caches-on-host", "host"):
            run = run_of(vae, "decode", x, Settings(placement=placement, tile_px=48))
            wanted = run()
            with _Delays():
                found = run()
            same = torch.equal(found, wanted)
            case = _name("delays on every stream", family, placement)
            yield Row("races", case, same, "the same bits", same)


def waiting(bench: Bench) -> Iterator[Row]:
    """Nothing in the loop over tiles waits for the card."""
    for family, kind in _each():
        case = _name(family, kind)
        if not bench.is_card:
            yield needs_card("waits in tiles", case, "none")
            continue
        rig, vae = bench.values, bench.values.vae(family, torch.bfloat16)
        x, run_tile, tiles = rig.source(vae, kind, rig.small), TileRunner.run, [0]

        def unwaiting(*args: Any, run_tile=run_tile, tiles=tiles) -> None:
            torch.cuda.set_sync_debug_mode("error")
            try:
                run_tile(*args)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            tiles[0] += 1

        with patch.object(TileRunner, "run", unwaiting):
            run_of(vae, kind, x.to(rig.device), Settings(placement="device", tile_px=48))()
        yield Row("waits in tiles", case, f"none in {tiles[0]} tiles", "none", tiles[0] > 0)


CHECKS = {
    "routes": routes,
    "slowness of routes": slowness,
    "backends": backends,
    "tile law": law,
    "error beside diffusers'": rounding,
    "same bits twice": repeated,
    "survived failures": failures,
    "probe file": probe_files,
    "races": races,
    "waits in tiles": waiting,
}
