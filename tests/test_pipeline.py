"""Do the threads beside the network pass everything on in order, end with it, and hold little?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from vae_core.media.pipeline import read_ahead, write_behind


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("vae_core ")]


def test_items_come_in_order() -> None:
    with read_ahead(range(100), depth=3) as items:
        assert list(items) == list(range(100))


def test_no_more_than_the_depth_is_made_ahead() -> None:
    made: list[int] = []
    with read_ahead((made.append(n) or n for n in count()), depth=3) as items:
        for number in islice(items, 10):
            time.sleep(0.002)
            # Three wait, one is about to, one is here.
            assert len(made) <= number + 5


def test_an_error_of_the_producer_comes_after_its_items() -> None:
    def broken() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the file ends here")

    with read_ahead(broken()) as items:
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(OSError, match="the file ends here"):
            next(items)


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_reader_that_leaves_early_closes_the_producer(taken: int) -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.append(True)

    def interrupted() -> None:
        with (
            read_ahead(endless(), depth=2) as first,
            read_ahead(map(str, first), depth=2) as second,
        ):
            assert list(islice(second, taken)) == [str(n) for n in range(taken)]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert closed == [True] or taken == 0


def test_everything_is_written_before_the_block_ends() -> None:
    written: list[int] = []

    def slowly(item: int) -> None:
        time.sleep(0.001)
        written.append(item)

    with write_behind(slowly, depth=2) as put:
        for number in range(30):
            put(number)
            assert number - len(written) <= 4
    assert written == list(range(30))


@pytest.mark.parametrize("items", [1, 100])
def test_an_error_of_the_writer_comes_out(items: int) -> None:
    def full(item: int) -> None:
        raise OSError("no space left")

    def write() -> None:
        with write_behind(full, depth=1) as put:
            for number in range(items):
                put(number)

    with pytest.raises(OSError, match="no space left"):
        write()


def test_an_error_of_the_caller_drops_what_waits() -> None:
    written: list[int] = []
    gate = threading.Event()

    def gated(item: int) -> None:
        gate.wait()
        written.append(item)

    def interrupted() -> None:
        with write_behind(gated, depth=5) as put:
            for number in range(4):
                put(number)
            opener.start()
            raise KeyboardInterrupt

    opener = threading.Timer(0.05, gate.set)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    opener.join()
    assert len(written) <= 1
