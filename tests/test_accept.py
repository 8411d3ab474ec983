"""Does the acceptance of a card say what it sees? It is run with stand-ins: sound ones, and others
that a check must refuse.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from gpu import accept, budgets, exactness, rigs, speed
from gpu.sheet import NEEDS_CARD, Row, Sheet, at_most, line, needs_card
from played_card import Library

from vae_core.planning.routes import Route, Table

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """One family, one dtype and few cases are enough to see what a check says."""
    monkeypatch.setattr(exactness, "FAMILIES", ("cogvideox",))
    monkeypatch.setattr(exactness, "HALVES", (torch.bfloat16,))
    monkeypatch.setattr(exactness, "PLACEMENTS", ("device",))
    monkeypatch.setattr(exactness, "KINDS", ("decode",))
    monkeypatch.setattr(rigs.Rig, "dtypes", (torch.float32,))
    monkeypatch.setattr(rigs.ShapesRig, "large", ((9, 32, 48),))
    monkeypatch.setattr(budgets, "FAMILIES", ("cogvideox",))


def accepted(tmp_path: Path, part: str, *checks: str, library: Library | None = None):
    """The exit code, and the rows by check."""
    path = tmp_path / "rows.json"
    only = [word for check in checks for word in ("--only", check)]
    code = accept.main([part, "--stand-in", "--json", str(path), *only], library)
    rows = json.loads(path.read_text())["rows"]
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["check"], []).append(row)
    return code, found


SOUND = {
    "a": ("routes", "same bits twice", "survived failures", "probe file", "races"),
    "b": ("peak", "peak, weights far away", "stopped runs", "real shortage"),
    "c": ("time", "overlap", "clocks"),
}


@pytest.mark.parametrize("part", SOUND)
def test_a_sound_card_passes(part, tmp_path, capsys) -> None:
    code, rows = accepted(tmp_path, part, *SOUND[part])
    failed = [row for several in rows.values() for row in several if row["passed"] is False]
    assert failed == []
    assert code == 0
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == sum(map(len, rows.values())) + 1  # and the head
    assert " 0 failed" in printed


def test_what_nothing_can_stand_in_for_neither_passes_nor_fails(tmp_path) -> None:
    _, rows = accepted(tmp_path, "c", "time", "clocks")
    untested = [row for row in rows["time"] if row["case"] != "c"] + rows["clocks"]
    assert untested
    assert {(row["passed"], row["note"]) for row in untested} == {(None, NEEDS_CARD)}


def test_a_card_whose_libraries_take_more_than_they_showed_fails(tmp_path, monkeypatch) -> None:
    library = Library(lambda route, x, y: 3 * (x + y))
    monkeypatch.setattr(Library, "table", Library().table)
    code, rows = accepted(tmp_path, "b", "peak", library=library)
    assert code == 1
    # what the first run showed is learnt for later ones of the process
    assert rows["peak"][0]["passed"] is False
    assert rows["peak"][0]["measured"] > 1


def test_what_libraries_take_is_no_failure_where_they_showed_it(tmp_path) -> None:
    library = Library(lambda route, x, y: 3 * (x + y))
    code, rows = accepted(tmp_path, "b", "peak", library=library)
    assert code == 0
    assert {row["passed"] for row in rows["peak"]} == {True}


def test_a_card_that_is_wrong_by_every_route_fails(tmp_path) -> None:
    code, rows = accepted(tmp_path, "a", "routes", library=Library(wrong=tuple(Route)))
    assert code == 1
    assert rows["routes"][0]["passed"] is False
    assert "convolutions" in rows["routes"][0]["measured"]


def test_a_card_that_turns_wrong_after_its_probe_fails_the_law(tmp_path, monkeypatch) -> None:
    def unprobed(card, *_):
        return Table(card.title())

    monkeypatch.setattr("vae_core.running.machines._completed", unprobed)
    code, rows = accepted(tmp_path, "a", "tile law", library=Library(wrong=(Route.CHANNELS_LAST,)))
    assert code == 1
    assert {row["passed"] for row in rows["tile law, of range"]} == {False}


def test_a_run_that_leaves_memory_behind_fails(tmp_path, monkeypatch) -> None:
    kept, run_of = [], budgets.run_of

    def leaking(*given):
        run = run_of(*given)

        def leak():
            result = run()
            kept.append(torch.empty(1024, device="meta"))
            return result

        return leak

    monkeypatch.setattr(budgets, "run_of", leaking)
    code, rows = accepted(tmp_path, "b", "left on the device")
    assert code == 1
    assert [row["passed"] for row in rows["left on the device"]] == [False]


def test_a_run_that_differs_from_time_to_time_fails(tmp_path, monkeypatch) -> None:
    run_of = exactness.run_of
    monkeypatch.setattr(
        exactness,
        "run_of",
        lambda *given: lambda: run_of(*given)() + 1e-3 * torch.rand(1),
    )
    code, rows = accepted(tmp_path, "a", "same bits twice")
    assert code == 1
    assert {row["passed"] for row in rows["same bits twice"]} == {False}


def test_too_many_operations_fail(tmp_path, monkeypatch) -> None:
    class Many(speed.Traffic):
        def __exit__(self, *raised) -> None:
            super().__exit__(*raised)
            self.operations *= 100

    monkeypatch.setattr(speed, "Traffic", Many)
    monkeypatch.setattr(speed, "CLIP", (5, 32, 32))
    code, rows = accepted(tmp_path, "c", "operations a tile")
    assert code == 1
    assert {row["passed"] for row in rows["operations a tile"]} == {False}


# The sheet itself


def sheet_of(*rows: Row, limit_seconds: float = 60) -> Sheet:
    sheet = Sheet("a", {})
    list(sheet.run({"check": lambda bench: rows}, lambda check: nullcontext(), limit_seconds))
    return sheet


def test_one_failed_row_fails_the_sheet_and_untested_ones_do_not() -> None:
    good, bad = at_most("x", "", 1.0, 2.0), at_most("x", "", 3.0, 2.0)
    assert sheet_of(good, needs_card("x", "", "")).passed
    assert not sheet_of(good, bad).passed


def test_a_figure_that_is_no_number_fails() -> None:
    assert not at_most("x", "", float("nan"), 1.0).passed
    assert not at_most("x", "", float("inf"), 1.0).passed


def test_a_check_that_raises_has_failed_and_the_others_go_on() -> None:
    def raises(_bench):
        raise RuntimeError("no kernel image is available")

    sheet = Sheet("a", {})
    checks = {"one": raises, "two": lambda bench: [at_most("two", "", 0.0, 1.0)]}
    list(sheet.run(checks, lambda check: nullcontext(), 60))
    assert [row.passed for row in sheet.rows] == [False, True, True]
    assert "no kernel image" in line(sheet.rows[0])
    assert not sheet.passed


def test_a_check_for_which_no_time_was_left_has_failed() -> None:
    sheet = sheet_of(at_most("x", "", 0.0, 1.0), limit_seconds=-1)
    assert sheet.rows[0].passed is False
    assert "no time" in line(sheet.rows[0])


def test_a_part_that_takes_too_long_has_failed(monkeypatch) -> None:
    monkeypatch.setattr("gpu.sheet.PART_SECONDS", -1)
    assert sheet_of().rows[-1].passed is False


WITHOUT_AV = """
import runpy, sys
sys.modules["av"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_without_a_card_it_says_so_and_its_exit_code_is_two_and_it_reads_no_videos() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    script = str(ROOT / "tests" / "gpu" / "accept.py")
    command = [sys.executable, "-c", WITHOUT_AV, script, "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 2, done.stderr
    assert "--stand-in" in done.stderr


def test_it_is_written_in_the_oldest_python() -> None:
    tests = ROOT / "tests"
    names = (
        *("card", "device_bytes", "networks", "networks_ltx", "networks_wan"),
        *("played_card", "traffic"),
    )
    files = [*(tests / "gpu").glob("*.py"), *(tests / f"{name}.py" for name in names)]
    for path in [*files, *(tests / "benchmarks").glob("*.py")]:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def test_every_part_has_its_checks_for_every_family() -> None:
    assert set(accept.PARTS) == {"a", "b", "c"}
    assert set(rigs.NARROW_UNMADE) == set(rigs.networks.NARROW) >= set(rigs.FAMILIES)


def test_rows_of_a_stand_in_do_not_lie_where_those_of_cards_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OUT", raising=False)
    card, stand_in = (
        accept.json_path(accept.arguments(["a", *flags])) for flags in ([], ["--stand-in"])
    )
    assert (card.parent.name, card.name) == ("docs", "gpu-a.json")
    assert (stand_in.parent.name, stand_in.name) == ("out", "gpu-stand-in-a.json")
