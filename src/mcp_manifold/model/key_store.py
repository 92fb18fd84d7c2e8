"""State that a later request finds by a key issued earlier: sessions, parked calls, calls to retry.

Only this module knows that these values live in this process. With several processes, `issue` would encode the owning
process in the key, and `find` would be called on the owner only.
"""

import secrets
from collections.abc import Collection
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

_KEY_BYTES: Final = 32
"""Random bytes in a key: it can be neither guessed nor issued twice."""


class KeyStore(Generic[_T]):
    """Values by issued key. The caller checks whether the bearer of a key may use the value."""

    def __init__(self) -> None:
        self._kept: dict[str, _T] = {}

    def __repr__(self) -> str:
        return f"<KeyStore {len(self._kept)} kept>"

    def __len__(self) -> int:
        return len(self._kept)

    def issue(self) -> str:
        """A new random key: 43 URL-safe characters."""
        return secrets.token_urlsafe(_KEY_BYTES)

    def keep(self, key: str, kept: _T) -> None:
        """Store a value under an issued key."""
        self._kept[key] = kept

    def find(self, key: str) -> _T | None:
        """The value of a key; None for an unknown key."""
        return self._kept.get(key)

    def forget(self, key: str) -> _T | None:
        """Remove a key; returns its value."""
        return self._kept.pop(key, None)

    def all(self) -> Collection[_T]:
        """All values at this moment."""
        return list(self._kept.values())
