"""Which block of memory does a store get, when those of earlier stores are free again?

Memory that a process has never touched costs as much as the work on it. So where no allocator of a
device keeps blocks for reuse, a run does:

1. A store takes the smallest spare block that is large enough, and not much too large.
2. Where there is none, all spare blocks are freed before a new one is made, so that no more is held
   than what lives and what has yet to be found of the wrong size.
3. A store that is gone leaves its block as a spare one, for later steps and for the next chunk.

The same `Pool` serves the run (`stores.Reused`) and the projection (`held_bytes`); it knows sizes
only, and no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

_LARGEST_SHARE = 2
"""Of what a store needs, the most that its block may hold."""


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of memory. number: tells it from others of its size."""

    number: int
    size_bytes: int


@dataclass(slots=True)
class Pool:
    """Blocks that stores live in, and spare ones.

    Invariant: a block is either some store's, or spare.
    """

    taken: dict[int, Block] = field(default_factory=dict[int, Block])
    spare: list[Block] = field(default_factory=list[Block])
    _made: int = 0

    def take(self, store: int, size_bytes: int) -> Block:
        """A block of at least `size_bytes` for `store`."""
        most = _LARGEST_SHARE * size_bytes
        fitting = [block for block in self.spare if size_bytes <= block.size_bytes <= most]
        if fitting:
            block = min(fitting, key=lambda block: block.size_bytes)
            self.spare.remove(block)
        else:
            self.spare.clear()
            self._made += 1
            block = Block(self._made, size_bytes)
        self.taken[store] = block
        return block

    def give(self, store: int) -> None:
        """The block of `store` is spare from now on."""
        self.spare.append(self.taken.pop(store))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All that are held."""
        return (*self.taken.values(), *self.spare)


def held_bytes(pool: Pool, live: Iterable[dict[int, int]]) -> tuple[int, ...]:
    """Bytes that `pool` holds while each step runs; the pool is left as the last one leaves it.

    live: for every step the stores that have memory of their own while it runs, and their bytes.
    """
    found: list[int] = []
    for stores in (*live, {}):
        for store in [store for store in pool.taken if store not in stores]:
            pool.give(store)
        for store, size_bytes in stores.items():
            if store not in pool.taken:
                pool.take(store, size_bytes)
        found.append(sum(block.size_bytes for block in pool.blocks))
    return tuple(found[:-1])
