"""Subscriptions to a resource and to its parents; `tests/properties` has the rest."""

import pytest

from mcp_manifold.model.subscriptions import MAX_PARENTS, Subscriptions, Watch, WatchTarget

NOTES = WatchTarget("files", "", "file:///notes.txt")


@pytest.mark.parametrize(
    ("watched", "changed", "is_notified"),
    [
        ("file:///dir", "file:///dir/a.txt", True),
        ("file:///dir/", "file:///dir/sub/a.txt", True),
        ("db://table", "db://table?row=1", True),
        ("doc://page", "doc://page#part", True),
        ("file://", "file:///a", True),
        ("file:///dir", "file:///director", False),
        ("file:///dir", "file:///dir2/a", False),
        ("file:///dir", "file:///di", False),
        ("file:///dir", "file:///", False),
        ("file:///dir", "", False),
        ("x:", "x:" + "/" * 3, True),
        ("x:", "x:" + "/" * (MAX_PARENTS * 2), False),
    ],
    ids=range(12),
)
def test_a_change_of_a_sub_resource_notifies_watchers_of_its_parent(
    watched: str, changed: str, is_notified: bool
) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", watched, WatchTarget("files", "", watched))
    assert made.watching(WatchTarget("files", "", changed)) == ((Watch("ann", ""),) if is_notified else ())
    assert made.watching(WatchTarget("files", "another link", changed)) == ()
    assert repr(made) == "<Subscriptions watchers=1 links=1>"


def test_a_watcher_of_a_resource_and_its_parent_is_notified_once() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///", WatchTarget("files", "", "file:///"))
    made.add("ann", "mine", NOTES)
    made.add("bob", "file:///", WatchTarget("files", "", "file:///"))
    assert made.watching(NOTES) == (Watch("ann", "mine"), Watch("bob", ""))
