"""Subscriptions: a target is shared, notified once, and released by its last watcher."""

import pytest

from mcp_manifold.model.subscriptions import MAX_PARENTS, Subscriptions, Watch, WatchTarget

NOTES = WatchTarget("files", "", "file:///notes.txt")
HELD = WatchTarget("files", "one client", "file:///notes.txt")


def test_a_target_is_released_by_its_last_watcher() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///notes.txt", NOTES)
    made.add("bob", "file:///notes.txt", NOTES)
    assert made.remove("ann", "file:///notes.txt") is None
    assert made.remove("ann", "file:///notes.txt") is None, "she watches nothing any more"
    assert made.remove("bob", "file:///notes.txt") == NOTES
    assert made.watched("files", "") == frozenset()


def test_two_names_of_one_watcher_are_two_subscriptions() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///notes.txt", NOTES)
    made.add("ann", "files+file:///notes.txt", NOTES)
    assert made.count("ann") == 2
    assert made.remove("ann", "file:///notes.txt") is None
    assert made.watching(NOTES) == (Watch("ann", "files+file:///notes.txt"),)
    assert made.leave("ann") == (NOTES,)


def test_subscribing_again_changes_nothing() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert made.add("ann", "n", NOTES) is None
    assert made.has("ann", "n")
    assert made.count("ann") == 1


def test_a_name_with_a_new_target_releases_the_old_one() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert made.add("ann", "n", HELD) == NOTES
    assert made.watching(NOTES) == ()


def test_subscriptions_are_separate_per_link() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", HELD)
    assert made.watching(NOTES) == ()
    assert made.watched("files", "") == frozenset()
    assert made.watched("files", "one client") == {"file:///notes.txt"}
    assert made.places("files") == ("one client",)
    assert made.places("other") == ()


def test_any_watcher_of_a_link_is_found_while_there_is_one() -> None:
    made: Subscriptions[str] = Subscriptions()
    assert made.anyone("files", "") is None
    made.add("ann", "n", NOTES)
    assert made.anyone("files", "") == "ann"
    made.leave("ann")
    assert made.anyone("files", "") is None


@pytest.mark.parametrize(
    ("watched", "changed"),
    [
        ("file:///dir", "file:///dir/a.txt"),
        ("file:///dir/", "file:///dir/sub/a.txt"),
        ("db://table", "db://table?row=1"),
        ("doc://page", "doc://page#part"),
        ("file://", "file:///a"),
    ],
)
def test_a_change_of_a_sub_resource_notifies_watchers_of_its_parent(watched: str, changed: str) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", watched, WatchTarget("files", "", watched))
    assert made.watching(WatchTarget("files", "", changed)) == (Watch("ann", ""),)


@pytest.mark.parametrize("changed", ["file:///director", "file:///dir2/a", "file:///di", "file:///", ""])
def test_a_common_prefix_does_not_make_a_sub_resource(changed: str) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///dir", WatchTarget("files", "", "file:///dir"))
    assert made.watching(WatchTarget("files", "", changed)) == ()


def test_a_watcher_of_a_resource_and_its_parent_is_notified_once() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///", WatchTarget("files", "", "file:///"))
    made.add("ann", "mine", NOTES)
    made.add("bob", "file:///", WatchTarget("files", "", "file:///"))
    assert made.watching(NOTES) == (Watch("ann", "mine"), Watch("bob", ""))


def test_a_hostile_uri_takes_bounded_work() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "x:", WatchTarget("files", "", "x:"))
    assert made.watching(WatchTarget("files", "", "x:" + "/" * (MAX_PARENTS * 2))) == ()
    assert made.watching(WatchTarget("files", "", "x:" + "/" * 3)) == (Watch("ann", ""),)


def test_its_repr_counts_watchers_and_links() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert repr(made) == "<Subscriptions watchers=1 links=1>"
