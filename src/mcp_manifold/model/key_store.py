"""What clients come back to by a key that was made for it: sessions, parked calls, calls to be repeated.

Theory. These are the only things a later request needs that an earlier one left behind. All of them are found here and
nowhere else, so this is the one place that knows that they live in this process. With several processes `issue` would
write into the key whose it is, and `find` would be asked only for keys that are its own.
"""

import secrets
from collections.abc import Collection
from typing import Final, Generic, Protocol, TypeVar

T = TypeVar("T")

_BYTES: Final = 32
"""Of chance in a key: nobody guesses one, and nobody meets another's."""


class KeyStore(Protocol[T]):
    """Keys to what was kept under them. Whether who brings a key may have it is not known here."""

    def issue(self) -> str:
        """A new key."""
        ...

    def keep(self, key: str, kept: T) -> None:
        """Keep something under a key that was minted for it."""
        ...

    def find(self, key: str) -> T | None:
        """What is kept under a key, if anything is."""
        ...

    def forget(self, key: str) -> T | None:
        """Keep it no longer; returns what it was."""
        ...

    def all(self) -> Collection[T]:
        """Everything that is kept in this process, as it is now."""
        ...

    def __len__(self) -> int:
        """How much that is."""
        ...


class InMemoryKeyStore(Generic[T]):
    """A Lookup in this process's memory."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, T] = {}

    def __repr__(self) -> str:
        return f"<InMemoryKeyStore {len(self._kept)} kept>"

    def __len__(self) -> int:
        return len(self._kept)

    def issue(self) -> str:
        """See `KeyStore`."""
        return secrets.token_urlsafe(_BYTES)

    def keep(self, key: str, kept: T) -> None:
        """See `KeyStore`."""
        self._kept[key] = kept

    def find(self, key: str) -> T | None:
        """See `KeyStore`."""
        return self._kept.get(key)

    def forget(self, key: str) -> T | None:
        """See `KeyStore`."""
        return self._kept.pop(key, None)

    def all(self) -> Collection[T]:
        """See `KeyStore`."""
        return list(self._kept.values())
