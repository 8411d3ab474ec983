"""Does the plan route of a running host answer anything at once, and keep nothing?"""

from __future__ import annotations

import http.client
import random
import time

import pytest
from host.client import Client
from questions import USUAL, fuzzed

pytestmark = pytest.mark.host

REQUESTS = 500
ROUNDS = 2
MOST_TIMES_HOST = (
    10  # what an answer takes of ours, against one of the host's own; a plan takes more
)
MOST_GROWTH = 1.02


def asked(
    client: Client, bodies: list[bytes], method: str = "POST", path: str = "/exact_video_vae/plan"
) -> tuple[set[int], list[float]]:
    """Statuses, and seconds from slowest to fastest, over one connection as a browser keeps it."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    statuses, seconds = set(), []
    for body in bodies:
        start = time.perf_counter()
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        seconds.append(time.perf_counter() - start)
        statuses.add(answer.status)
    connection.close()
    return statuses, sorted(seconds, reverse=True)


def test_five_hundred_fuzzed_requests_are_answered_at_once_and_leave_nothing(
    client: Client, capsys: pytest.CaptureFixture[str]
):
    while client.ask("/exact_video_vae/plan", USUAL)[0] == 202:
        time.sleep(0.1)
    rng = random.Random(11)
    asked(client, [fuzzed(rng) for _ in range(REQUESTS)])
    before = client.resident_bytes()
    rounds = [asked(client, [fuzzed(rng) for _ in range(REQUESTS)]) for _ in range(ROUNDS)]
    growth = client.resident_bytes() / before
    _, theirs = asked(client, [b""] * REQUESTS, "GET", "/queue")
    statuses = set().union(*(found for found, _ in rounds))
    seconds = min((found for _, found in rounds), key=lambda found: found[0])
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{REQUESTS} fuzzed requests: statuses {sorted(statuses)}, median"
            f" {1000 * seconds[REQUESTS // 2]:.1f} ms, slowest {1000 * seconds[0]:.1f} ms,"
            f" the host's own median {1000 * theirs[REQUESTS // 2]:.1f} ms,"
            f" resident memory x {growth:.3f}"
        )
    assert statuses <= {200, 202, 400}
    assert seconds[REQUESTS // 2] < MOST_TIMES_HOST * theirs[REQUESTS // 2]
    assert growth < MOST_GROWTH
