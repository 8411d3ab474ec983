"""Do the threads beside the network pass everything on in order, end with it, and hold little?"""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import pytest

from vae_core.media import pipeline
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


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("vae_core ")}


def wait_until_none_is_left() -> None:
    while threads():
        threading.Event().wait(0.001)


@pytest.mark.parametrize("when", ["before the block ends", "after the block has ended"])
@pytest.mark.parametrize(("items", "bad"), [(1, 0), (4, 3), (100, 0), (100, 99)])
def test_an_error_of_the_writer_comes_out_whichever_item_it_was(
    items: int, bad: int, when: str
) -> None:
    gate = threading.Event()

    def full(item: int) -> None:
        if item == bad:
            gate.wait()
            raise OSError("no space left")

    def write() -> None:
        with write_behind(full, depth=items) as put:
            for number in range(items):
                put(number)
            if when == "before the block ends":
                gate.set()
                wait_until_none_is_left()
            else:
                threading.Timer(0.01, gate.set).start()

    with pytest.raises(OSError, match="no space left"):
        write()


@pytest.mark.parametrize("caught", [False, True])
def test_a_writer_that_failed_never_ends_well(caught: bool) -> None:
    def full(item: int) -> None:
        raise OSError("no space left")

    def write() -> None:
        with write_behind(full, depth=1) as put:
            wait = range(100) if caught else ()
            for number in (0, *wait):
                with contextlib.suppress(OSError):
                    put(number)

    with pytest.raises(OSError, match="no space left"):
        write()


def test_of_two_errors_the_block_s_is_raised_and_tells_the_writer_s() -> None:
    def full(item: int) -> None:
        raise OSError("no space left")

    def write() -> None:
        with write_behind(full) as put:
            put(1)
            wait_until_none_is_left()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        write()
    assert str(raised.value.__context__) == "no space left"


def test_nothing_is_taken_once_the_block_has_ended() -> None:
    with write_behind(print) as put:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        put(1)


def test_a_producer_s_error_is_told_to_a_reader_that_leaves_early() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the file ends here")

    def read() -> None:
        with read_ahead(broken()) as items:
            next(items)
            wait_until_none_is_left()

    with pytest.raises(OSError, match="the file ends here"):
        read()


def test_an_error_while_the_producer_is_closed_is_told() -> None:
    def endless() -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise OSError("cannot be closed")

    def read() -> None:
        with read_ahead(endless(), depth=1) as items:
            next(items)

    with pytest.raises(OSError, match="cannot be closed"):
        read()


def test_an_error_that_a_reader_dealt_with_is_not_raised_again() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the file ends here")

    with read_ahead(broken()) as items, contextlib.suppress(OSError):
        list(items)


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


@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="only the main thread is"
)
def test_a_second_interrupt_leaves_a_reader_that_stands_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, entered = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        entered.set()
        gate.wait()
        yield 1

    def interrupt_twice() -> None:
        entered.wait()  # the block may not even have been entered
        _thread.interrupt_main()
        joining.wait()
        _thread.interrupt_main()

    def wait_for_end(thread: threading.Thread) -> None:
        joining.set()
        look(thread)

    # what a shell starts in the background ignores interrupts, and so would this process
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    look = pipeline._wait_for_end
    joining, interrupter = threading.Event(), threading.Thread(target=interrupt_twice)
    monkeypatch.setattr(pipeline, "_wait_for_end", wait_for_end)
    interrupter.start()
    try:
        with pytest.raises(KeyboardInterrupt), read_ahead(stuck()) as items:
            next(items)
    finally:
        signal.signal(signal.SIGINT, before)
    interrupter.join()
    gate.set()
    wait_until_none_is_left()
