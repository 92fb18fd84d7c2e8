"""Who watches what: counted once, told once, let go at the last."""

import pytest

from mcp_manifold.model.subscriptions import MAX_PARENTS, Subscriptions, Watch, WatchTarget

NOTES = WatchTarget("files", "", "file:///notes.txt")
HELD = WatchTarget("files", "one client", "file:///notes.txt")


def test_a_target_is_let_go_by_the_last_who_watched_it_and_no_sooner() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///notes.txt", NOTES)
    made.add("bob", "file:///notes.txt", NOTES)
    assert made.remove("ann", "file:///notes.txt") is None
    assert made.remove("ann", "file:///notes.txt") is None, "she watches nothing any more"
    assert made.remove("bob", "file:///notes.txt") == NOTES
    assert made.watched("files", "") == frozenset()


def test_two_names_of_one_watcher_are_two_watches() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///notes.txt", NOTES)
    made.add("ann", "files+file:///notes.txt", NOTES)
    assert made.count("ann") == 2
    assert made.remove("ann", "file:///notes.txt") is None
    assert made.watching(NOTES) == (Watch("ann", "files+file:///notes.txt"),)
    assert made.leave("ann") == (NOTES,)


def test_watching_the_same_again_changes_nothing() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert made.add("ann", "n", NOTES) is None
    assert made.has("ann", "n")
    assert made.count("ann") == 1


def test_a_name_that_means_something_else_now_lets_go_of_what_it_meant() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert made.add("ann", "n", HELD) == NOTES
    assert made.watching(NOTES) == ()


def test_one_link_knows_nothing_of_another() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", HELD)
    assert made.watching(NOTES) == ()
    assert made.watched("files", "") == frozenset()
    assert made.watched("files", "one client") == {"file:///notes.txt"}
    assert made.places("files") == ("one client",)
    assert made.places("other") == ()


def test_somebody_is_found_who_watches_over_a_link_as_long_as_there_is_one() -> None:
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
def test_a_change_of_a_sub_resource_concerns_who_watches_what_it_is_in(watched: str, changed: str) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", watched, WatchTarget("files", "", watched))
    assert made.watching(WatchTarget("files", "", changed)) == (Watch("ann", ""),)


@pytest.mark.parametrize("changed", ["file:///director", "file:///dir2/a", "file:///di", "file:///", ""])
def test_a_name_that_only_begins_alike_is_no_sub_resource(changed: str) -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///dir", WatchTarget("files", "", "file:///dir"))
    assert made.watching(WatchTarget("files", "", changed)) == ()


def test_who_watches_a_resource_and_what_it_is_in_is_told_once_by_its_own_name() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "file:///", WatchTarget("files", "", "file:///"))
    made.add("ann", "mine", NOTES)
    made.add("bob", "file:///", WatchTarget("files", "", "file:///"))
    assert made.watching(NOTES) == (Watch("ann", "mine"), Watch("bob", ""))


def test_a_hostile_uri_is_not_looked_at_for_ever() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "x:", WatchTarget("files", "", "x:"))
    assert made.watching(WatchTarget("files", "", "x:" + "/" * (MAX_PARENTS * 2))) == ()
    assert made.watching(WatchTarget("files", "", "x:" + "/" * 3)) == (Watch("ann", ""),)


def test_it_says_how_much_it_holds() -> None:
    made: Subscriptions[str] = Subscriptions()
    made.add("ann", "n", NOTES)
    assert repr(made) == "<Subscriptions watchers=1 links=1>"
