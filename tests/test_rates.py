"""How long may a plan take: are the rates those that the probe measured?"""

from __future__ import annotations

import pytest
import torch
from test_places import job_of

from vae_core.planning.classes import classes_of
from vae_core.planning.rates import rates_of
from vae_core.planning.routes import Finding, Route, Table
from vae_core.running.probe import copied_per_second


def timed(job, seconds) -> Table:
    """Every class timed for a million operations; seconds: that one took, by its taps."""
    found = {
        kind: (Finding(Route.CHANNELS_LAST, True, 0.0, None, None, seconds(kind), 10**6),)
        for kind in classes_of(job.program)
    }
    return Table("a card", found, copied=1e9)


def test_a_program_whose_convolutions_are_all_alike_has_their_rate() -> None:
    job = job_of("cogvideox", "decode", (3, 6, 8))
    rates = rates_of(timed(job, lambda kind: 0.5), job.program)
    assert rates
    assert rates.operations == pytest.approx(2e6)
    assert rates.moved_bytes == 1e9


def test_slow_convolutions_count_with_their_share_of_the_work() -> None:
    job = job_of("cogvideox", "decode", (3, 6, 8))
    rates = rates_of(timed(job, lambda kind: 1.0 if kind.taps == (3, 3, 3) else 0.1), job.program)
    assert rates
    assert 1e6 < rates.operations < 5e6


@pytest.mark.parametrize("missing", ["copies", "convolutions"])
def test_what_was_not_timed_gives_no_rates(missing) -> None:
    job = job_of("wan", "decode", (3, 6, 8))
    table = timed(job, lambda kind: 0.5)
    table = Table("a card", table.found if missing == "copies" else {}, copied=0.0)
    assert rates_of(table, job.program) is None


class Slow:
    """A device whose every question takes half a second."""

    device, now = torch.device("cpu"), 0.0

    def seconds(self) -> float:
        self.now += 0.5
        return self.now


def test_copies_are_timed_there_and_back() -> None:
    assert copied_per_second(Slow()) == 2 * 2**25
