"""How do reading, converting and writing go on while the network computes?

1. `read_ahead` runs an iterable in a thread of its own and hands its items over through a bounded
   queue: a fast producer waits, so that memory does not grow.
2. `write_behind` is the other end: what is put into it is consumed in a thread of its own.
3. Both are context managers. What goes wrong in a thread is raised where its items are used, and at
   the latest when the block ends; where the block raises as well, it is chained to that. When a
   block ends, however it ends, its thread has ended too.

Threads suffice: decoding, converting and encoding video, and the network's kernels, all let go of
the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any, Generic, TypeVar, cast

Item = TypeVar("Item")

DEPTH = 4
"""Items that wait between two stages; enough for uneven work, few enough for large frames."""

_LOOK_SECONDS = 0.5
"""How often a thread that waits looks up: on Windows, Ctrl-C does not interrupt a wait."""


class _Channel(Generic[Item]):
    """A bounded queue between two threads.

    Invariants: at most `depth` items wait. After `finish` no more are put; after `abandon` no more
    are taken, and whoever puts is told to stop. The first error of either end is kept for good.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._abandoned = False
        self._error: BaseException | None = None
        self._taken = False

    def _wait(self, until: Callable[[], object]) -> None:
        """Until something is so; the lock is held before and after."""
        while not self._changed.wait_for(until, _LOOK_SECONDS):
            pass

    def put(self, item: Item) -> bool:
        """Add an item when there is room; False where nobody wants it any more."""
        with self._changed:
            self._wait(lambda: len(self._items) < self._depth or self._abandoned or self._finished)
            if self._abandoned or self._finished:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def __iter__(self) -> Iterator[Item]:
        """Items in order, until `finish`; its error is raised after the last of them."""
        while True:
            with self._changed:
                self._wait(lambda: self._items or self._finished or self._abandoned)
                if self._abandoned or not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # a large frame must not wait here for the next one
        if self._error is not None and not self._abandoned:
            self._taken = True
            raise self._error

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no more items come, and why."""
        with self._changed:
            self._finished, self._error = True, self._error or error
            self._changed.notify_all()

    def abandon(self, error: BaseException | None = None) -> None:
        """Say that no more items are wanted, and why; those that wait are dropped."""
        with self._changed:
            self._abandoned, self._error = True, self._error or error
            self._items.clear()
            self._changed.notify_all()

    @property
    def abandoned(self) -> bool:
        """Whether no more items are wanted."""
        return self._abandoned

    @property
    def error(self) -> BaseException | None:
        """What went wrong in the thread, as far as it is known."""
        return self._error

    @property
    def untold(self) -> BaseException | None:
        """An error that nobody who took items has seen."""
        return None if self._taken else self._error


def _join(thread: threading.Thread, channel: _Channel[Any]) -> None:
    """Wait until a thread has ended. An interrupt drops what waits; the next one ends the wait, for
    there is no other way out where a library stands still.
    """
    dropped = channel.abandoned
    try:
        _wait_for_end(thread)
    except BaseException:
        if dropped:
            raise
        channel.abandon()
        _wait_for_end(thread)
        raise


def _wait_for_end(thread: threading.Thread) -> None:
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)


def _chain(raised: BaseException, also: BaseException | None) -> None:
    """Let the traceback of `raised` tell what went wrong beside it."""
    if also is None:
        return
    last = raised
    while last is not also and (before := last.__cause__ or last.__context__) is not None:
        last = before
    if last is not also:
        last.__context__ = also


@contextmanager
def _beside(work: Callable[[], None], name: str, channel: _Channel[Any]) -> Generator[None]:
    """A block beside which `work` runs in a thread; at its end the thread has ended, and no error
    of its is lost.
    """
    thread = threading.Thread(target=work, name=f"vae_core {name}", daemon=True)
    try:
        try:
            thread.start()
            yield
        except BaseException:
            channel.abandon()
            raise
        finally:
            _join(thread, channel)
    except BaseException as raised:
        _chain(raised, channel.error)
        raise
    if channel.untold is not None:
        raise channel.untold


@contextmanager
def read_ahead(items: Iterable[Item], depth: int = DEPTH) -> Generator[Iterator[Item]]:
    """The same items, made in a thread that is at most `depth` of them ahead.

    Where the block ends early, the producer is stopped at its next item, and closed if it is a
    generator; what it raised before or then comes out of the block's end.
    """
    channel: _Channel[Item] = _Channel(depth)

    def produce() -> None:
        try:
            with closing(cast("Any", items)) if isinstance(items, Generator) else nullcontext():
                for item in items:
                    if not channel.put(item):
                        break
                    del item
        except BaseException as caught:  # raised where the items are used
            channel.finish(caught)
        else:
            channel.finish()

    with _beside(produce, "reader", channel):
        try:
            yield iter(channel)
        finally:
            channel.abandon()


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

    def put(item: Item) -> None:
        if not channel.put(item):
            raise channel.error or RuntimeError("the writer has been closed")

    with _beside(work, "writer", channel):
        yield put
        channel.finish()
