"""How do reading, converting and writing go on while the network computes?

1. `read_ahead` runs an iterable in a thread of its own and hands its items over through a bounded
   queue: a fast producer waits, so that memory does not grow.
2. `write_behind` is the other end: what is put into it is consumed in a thread of its own.
3. Both are context managers. What goes wrong in a thread is raised where its items are used; when a
   block ends, however it ends, its thread has ended too.

Threads suffice: decoding, converting and encoding video, and the network's kernels, all let go of
the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")

DEPTH = 4
"""Items that wait between two stages; enough for uneven work, few enough for large frames."""


class _Channel(Generic[Item]):
    """A bounded queue between two threads.

    Invariants: at most `depth` items wait. After `finish` no more are put; after `abandon` no more
    are taken, and whoever puts is told to stop.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._abandoned = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> bool:
        """Add an item when there is room; False where nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._abandoned)
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[Item]:
        """Items in order, until `finish`; its error is raised after the last of them."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._finished or self._abandoned)
                if self._abandoned or not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # a large frame must not wait here for the next one
        if self._error is not None and not self._abandoned:
            raise self._error

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no more items come, and why."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def abandon(self, error: BaseException | None = None) -> None:
        """Say that no more items are wanted, and why; those that wait are dropped."""
        with self._changed:
            self._abandoned, self._error = True, error
            self._items.clear()
            self._changed.notify_all()

    @property
    def error(self) -> BaseException | None:
        """Why the other end has stopped; None where nothing went wrong."""
        return self._error


def _start(work: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=f"vae_core {name}", daemon=True)
    thread.start()
    return thread


@contextmanager
def read_ahead(items: Iterable[Item], depth: int = DEPTH) -> Generator[Iterator[Item]]:
    """The same items, made in a thread that is at most `depth` of them ahead.

    Where the block ends early, the producer is stopped at its next item, and closed if it is a
    generator.
    """
    channel: _Channel[Item] = _Channel(depth)

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not channel.put(item):
                    break
                del item
        except BaseException as caught:  # raised where the items are used
            error = caught
        finally:
            if isinstance(items, Generator):
                items.close()
            channel.finish(error)

    thread = _start(produce, "reader")
    taken = iter(channel)
    try:
        yield taken
    finally:
        channel.abandon()
        thread.join()


@contextmanager
def write_behind(
    consume: Callable[[Item], object], depth: int = DEPTH
) -> Generator[Callable[[Item], None]]:
    """A function that hands an item to `consume`, which runs in a thread of its own.

    When the block ends well, all items have been consumed. When it raises, those that wait are
    dropped. What `consume` raises comes out of the next hand-over, or of the block's end.
    """
    channel: _Channel[Item] = _Channel(depth)

    def work() -> None:
        try:
            for item in channel:
                consume(item)
                del item
        except BaseException as caught:  # raised where items are handed over
            channel.abandon(caught)

    thread = _start(work, "writer")

    def put(item: Item) -> None:
        if not channel.put(item):
            raise channel.error or RuntimeError("the writer has been closed")

    try:
        yield put
        channel.finish()
    except BaseException:
        if channel.error is None:
            channel.abandon()
        raise
    finally:
        thread.join()
    if channel.error is not None:
        raise channel.error
