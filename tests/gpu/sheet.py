"""What did the checks find, as a table for a person and as JSON?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

PART_SECONDS = 9 * 60
"""No part takes longer."""

NEEDS_CARD = "needs a card"


@dataclass(frozen=True)
class Row:
    """One check of one case.

    measured: a figure, or words. criterion: what it has to be. passed: None where it was not put to
    the test, and then `note` says why.
    """

    check: str
    case: str
    measured: Any
    criterion: str
    passed: bool | None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it passed, in a word or three."""
        return {True: "passed", False: "FAILED", None: self.note or "not tested"}[self.passed]


def needs_card(check: str, case: str, criterion: str) -> Row:
    """The row of a check that nothing can play a card in."""
    return Row(check, case, "", criterion, None, NEEDS_CARD)


def at_most(check: str, case: str, measured: float, limit: float, note: str = "") -> Row:
    """A row that passes where a figure is no more than its limit, and is a number at all."""
    return Row(check, case, measured, f"<= {limit:.6g}", bool(measured <= limit), note)


Check = Callable[[Any], Iterable[Row]]


@dataclass
class Sheet:
    """All rows of one part.

    facts: of the machine. rows: in the order in which they came.
    """

    part: str
    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(row.passed is not False for row in self.rows)

    def run(
        self,
        checks: dict[str, Check],
        bench_for: Callable[[Check], AbstractContextManager[Any]],
        limit_seconds: float,
    ) -> Iterator[Row]:
        """The rows of `checks`, as they come. One that raises has failed, and so has one for which
        there was no time.
        """
        start = time.monotonic()
        for name, check in checks.items():
            if time.monotonic() - start > limit_seconds:
                yield self._add(Row(name, "", "", "run", False, "no time was left for it"))
                continue
            try:
                with bench_for(check) as bench:
                    for row in check(bench):
                        yield self._add(row)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                yield self._add(Row(name, "", said[:300], "ends without an error", False))
        self.seconds = time.monotonic() - start
        yield self._add(at_most("time", self.part, round(self.seconds, 1), PART_SECONDS))

    def _add(self, row: Row) -> Row:
        self.rows.append(row)
        return row

    def as_dict(self) -> dict[str, Any]:
        """The sheet as JSON can hold it."""
        return {
            "part": self.part,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "facts": self.facts,
            "rows": [asdict(row) for row in self.rows],
        }


def line(row: Row) -> str:
    """A row of the table."""
    measured = f"{row.measured:.4g}" if isinstance(row.measured, float) else str(row.measured)
    said = row.note if row.passed is False and row.note else ""
    cells = (row.check, row.case, measured, row.criterion, row.verdict, said)
    return "| " + " | ".join(cells[: 6 if said else 5]) + " |"


HEAD = "| check | case | measured | criterion | |\n|-|-|-|-|-|"
