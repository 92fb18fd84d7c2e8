"""Subscriptions to a resource and to its parents; `tests/properties` has the rest."""

import pytest

from mcp_manifold.model.subscriptions import MAX_PARENTS, Subscriptions, Watch, WatchTarget

NOTES = WatchTarget("files", "", "file:///notes.txt")


@pytest.mark.parametrize(
    ("watched", "notified", "others"),
    [
        ("file:///dir", ("/a.txt",), ("ector", "2/a")),
        ("file:///dir/", ("sub/a.txt",), ()),
        ("db://table", ("?row=1",), ()),
        ("doc://page", ("#part",), ()),
        ("file://", ("/a",), ()),
        ("x:", ("/" * 3,), ("/" * (MAX_PARENTS * 2),)),
    ],
)
def test_a_parents_watchers_are_notified(watched: str, notified: tuple[str, ...], others: tuple[str, ...]) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", watched, WatchTarget("files", "", watched))
    for below in notified:
        assert made.watching(WatchTarget("files", "", watched + below)) == (Watch("ann", ""),)
        assert made.watching(WatchTarget("files", "another link", watched + below)) == ()
    for uri in (*(watched + other for other in others), watched[:-1], watched.rpartition("/")[0], ""):
        assert made.watching(WatchTarget("files", "", uri)) == ()
    assert repr(made) == "<Subscriptions watchers=1 links=1>"


def test_a_watcher_of_a_resource_and_its_parent_is_notified_once() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///", WatchTarget("files", "", "file:///"))
    made.add("ann", "mine", NOTES)
    made.add("bob", "file:///", WatchTarget("files", "", "file:///"))
    assert made.watching(NOTES) == (Watch("ann", "mine"), Watch("bob", ""))
