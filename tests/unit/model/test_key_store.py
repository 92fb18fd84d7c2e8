"""The key store: a value is found by its issued key only."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.model.key_store import KeyStore


def test_a_value_is_found_until_it_is_forgotten() -> None:
    lookup: KeyStore[str] = KeyStore()
    key = lookup.issue()
    assert lookup.find(key) is None
    lookup.keep(key, "a session")
    assert lookup.find(key) == "a session"
    assert (len(lookup), list(lookup.all())) == (1, ["a session"])
    assert lookup.forget(key) == "a session"
    assert (lookup.find(key), lookup.forget(key), len(lookup)) == (None, None, 0)


def test_the_store_may_change_during_iteration() -> None:
    lookup: KeyStore[int] = KeyStore()
    lookup.keep(lookup.issue(), 0)
    for number in lookup.all():
        lookup.keep(lookup.issue(), number + 1)
    assert len(lookup) == 2


def test_keys_are_long_and_unique() -> None:
    lookup: KeyStore[int] = KeyStore()
    keys = {lookup.issue() for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) >= 32


@given(st.text())
def test_an_unknown_key_has_no_value(key: str) -> None:
    lookup: KeyStore[int] = KeyStore()
    lookup.keep(lookup.issue(), 1)
    assert lookup.find(key) is None
