"""The bounded cache: never more entries than its limit, and the newest ones stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.bounded_cache import BoundedCache

STEPS = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 6), st.integers())), max_size=60)
"""Puts of (key, value), and None for clear."""


@given(limit=st.integers(1, 4), steps=STEPS)
def test_the_newest_keys_stay_with_their_last_value(limit: int, steps: list[tuple[int, int] | None]) -> None:
    cache: BoundedCache[int, int] = BoundedCache(limit)
    model: list[tuple[int, int]] = []
    for step in steps:
        if step is None:
            cache.clear()
            model = []
        else:
            cache.put(*step)
            known = [key for key, _ in model]
            if step[0] in known:
                model[known.index(step[0])] = step
            else:
                model = [*model, step][-limit:]
        assert {key: cache.get(key) for key in range(7) if cache.get(key) is not None} == dict(model)
        assert len(cache) == len(model) <= limit


def test_a_cache_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one entry, not 0"):
        BoundedCache[int, int](0)
