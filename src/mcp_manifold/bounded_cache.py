"""A cache of at most N entries: a new entry evicts the oldest. Holds values of any type; imports nothing of ours."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class BoundedCache(Generic[_K, _V]):
    """Values by key, at most `limit` (>= 1) of them, evicted in the order they were put in (FIFO).

    Bound the size of keys and values before `put`: the cache counts entries, not bytes.
    """

    __slots__ = ("_limit", "_values", "get")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a cache needs room for at least one entry, not {limit}")
        self._limit = limit
        self._values: dict[_K, _V] = {}
        self.get: Callable[[_K], _V | None] = self._values.get
        """The value of a key; None when it is not cached. The dict's own method, because it is on the hot path."""

    def __repr__(self) -> str:
        return f"<BoundedCache {len(self._values)}/{self._limit}>"

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: _K, value: _V) -> None:
        """Cache `value` under `key`; when full, a new key evicts the oldest. A known key keeps its age."""
        values = self._values
        if len(values) >= self._limit and key not in values:
            del values[next(iter(values))]
        values[key] = value

    def clear(self) -> None:
        """Remove all entries."""
        self._values.clear()
