"""How does the progress of one plan go on over several executions?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..settings import Progress


class CarriedProgress:
    """Progress over several executions of one plan: each goes on where the last one stopped."""

    def __init__(self, report: Callable[[Progress], object] | None) -> None:
        self._report = report
        self._done = 0

    def callback(self) -> Callable[[Progress], object] | None:
        """What the next execution reports to."""
        if self._report is None:
            return None
        report, before = self._report, self._done

        def add(progress: Progress) -> None:
            self._done = before + progress.done_operations
            report(replace(progress, done_operations=self._done))

        return add
