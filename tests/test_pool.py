"""Does memory that is used again hold everything, and no more of it than it says?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vae_core.planning.pool import Pool, held_bytes

STEPS = st.lists(
    st.dictionaries(st.integers(0, 5), st.integers(1, 1000), max_size=3), min_size=1, max_size=30
)
"""For every step the stores that live, and their bytes."""


def with_one_size_each(live: list[dict[int, int]]) -> list[dict[int, int]]:
    """The same steps, where a store keeps its size for as long as it lives."""
    found: list[dict[int, int]] = []
    for stores in live:
        before = found[-1] if found else {}
        found.append({store: before.get(store, size) for store, size in stores.items()})
    return found


@given(STEPS)
def test_blocks_hold_their_stores_and_are_no_more_than_twice_as_large(live):
    pool = Pool()
    for stores in with_one_size_each(live):
        held_bytes(pool, [stores])
        for store, size in stores.items():
            pool.take(store, size)
        for store, size in stores.items():
            assert size <= pool.taken[store].size_bytes <= 2 * size
        numbers = [block.number for block in pool.blocks]
        assert len(set(numbers)) == len(numbers)


@given(STEPS)
def test_what_is_held_covers_what_lives(live):
    steps = with_one_size_each(live)
    for stores, held in zip(steps, held_bytes(Pool(), steps), strict=True):
        assert held >= sum(stores.values())


def test_two_stores_in_turn_need_two_blocks_however_long_it_goes_on():
    steps = [{0: 100}, {0: 100, 1: 90}, {1: 90, 2: 100}, {2: 100, 3: 80}, {3: 80}] * 4
    pool = Pool()
    assert max(held_bytes(pool, steps)) == 190
    assert len(pool.blocks) == 2


def test_a_small_store_does_not_keep_a_large_block():
    assert held_bytes(Pool(), [{0: 1000}, {0: 1000, 1: 100}, {1: 100}, {1: 100, 2: 90}]) == (
        1000,
        1100,
        1100,
        190,
    )
