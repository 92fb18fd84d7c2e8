"""What clients come back to: found by the key that was made for it, and by no other."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.model.key_store import InMemoryKeyStore, KeyStore


def test_what_is_kept_is_found_until_it_is_forgotten() -> None:
    lookup: KeyStore[str] = InMemoryKeyStore()
    key = lookup.issue()
    assert lookup.find(key) is None
    lookup.keep(key, "a session")
    assert lookup.find(key) == "a session"
    assert (len(lookup), list(lookup.all())) == (1, ["a session"])
    assert lookup.forget(key) == "a session"
    assert (lookup.find(key), lookup.forget(key), len(lookup)) == (None, None, 0)


def test_what_is_kept_may_change_while_all_of_it_is_gone_through() -> None:
    lookup: KeyStore[int] = InMemoryKeyStore()
    for number in range(3):
        lookup.keep(lookup.issue(), number)
    for number in lookup.all():
        lookup.keep(lookup.issue(), number + 10)
    assert len(lookup) == 6


def test_keys_are_long_and_never_the_same() -> None:
    lookup: KeyStore[int] = InMemoryKeyStore()
    keys = {lookup.issue() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 32


@given(st.text())
def test_nothing_is_found_under_a_key_that_was_not_made(key: str) -> None:
    lookup: KeyStore[int] = InMemoryKeyStore()
    lookup.keep(lookup.issue(), 1)
    assert lookup.find(key) is None
