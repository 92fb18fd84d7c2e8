"""Whose turn it is: nobody is served twice while somebody else waits, and a full house hurts who fills it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.calls.fair_queue import FairQueue


def filled(*who: str) -> "FairQueue[str]":
    """Each `principal/session` waits, in this order; numbered within its session."""
    turns: FairQueue[str] = FairQueue()
    seen: Counter[str] = Counter()
    for each in who:
        principal, session = each.split("/")
        seen[each] += 1
        turns.join(principal, session, f"{each}{seen[each]}")
    return turns


def served(turns: "FairQueue[str]") -> list[str]:
    return [turns.next() for _ in range(len(turns))]


def test_one_session_is_served_in_its_order() -> None:
    assert served(filled("a/x", "a/x", "a/x")) == ["a/x1", "a/x2", "a/x3"]


def test_a_principal_with_many_calls_is_served_as_often_as_one_with_few() -> None:
    assert served(filled("a/x", "a/x", "a/x", "b/y")) == ["a/x1", "b/y1", "a/x2", "a/x3"]


def test_many_sessions_make_no_principal_more_important() -> None:
    assert served(filled("a/x", "a/y", "a/z", "b/w", "b/w")) == ["a/x1", "b/w1", "a/y1", "b/w2", "a/z1"]


def test_nobody_waiting_is_an_error() -> None:
    with pytest.raises(IndexError):
        FairQueue[str]().next()


def test_who_left_is_not_served() -> None:
    turns = filled("a/x", "a/x", "b/y")
    assert turns.leave("a", "x", "a/x1")
    assert not turns.leave("a", "x", "a/x1")
    assert not turns.leave("c", "x", "a/x1")
    assert served(turns) == ["a/x2", "b/y1"]


def test_the_latest_of_the_longest_line_gives_way_to_a_newcomer() -> None:
    turns = filled("a/x", "a/x", "a/y", "b/z")
    assert turns.displaced("c", "w") == "a/x2"
    assert served(turns) == ["a/x1", "b/z1", "a/y1"]


def test_within_a_principal_its_longest_session_gives_way() -> None:
    assert filled("a/x", "a/x", "a/x").displaced("a", "y") == "a/x3"


@pytest.mark.parametrize("who", ["a/x", "b/y", "c/z"])
def test_nobody_gives_way_to_one_who_would_have_as_many(who: str) -> None:
    assert filled("a/x", "b/y").displaced(*who.split("/")) is None


def test_nobody_gives_way_where_nobody_waits() -> None:
    assert FairQueue[str]().displaced("a", "x") is None


WHO = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.lists(WHO, max_size=40))
def test_between_two_turns_of_a_principal_all_others_who_wait_have_one(arrivals: list[tuple[str, str]]) -> None:
    turns: FairQueue[tuple[str, str]] = FairQueue()
    for principal, session in arrivals:
        turns.join(principal, session, (principal, session))
    left = Counter(principal for principal, _ in arrivals)
    since: dict[str, set[str]] = {}
    while len(turns):
        principal, _ = turns.next()
        others = {name for name, count in left.items() if count and name != principal}
        assert others <= since.get(principal, others)
        left[principal] -= 1
        for name in since:
            since[name].add(principal)
        since[principal] = set()
    assert not +left


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "next", "displace"]), WHO), max_size=60))
def test_nobody_is_lost_or_served_twice(steps: list[tuple[str, tuple[str, str]]]) -> None:
    turns: FairQueue[tuple[int, str, str]] = FairQueue()
    waiting: set[tuple[int, str, str]] = set()
    for number, (step, (principal, session)) in enumerate(steps):
        if step == "join":
            waiting.add((number, principal, session))
            turns.join(principal, session, (number, principal, session))
        elif step == "leave" and waiting:
            who = min(waiting)
            assert turns.leave(who[1], who[2], who)
            waiting.remove(who)
        elif step == "next" and waiting:
            waiting.remove(turns.next())
        elif step == "displace":
            gone = turns.displaced(principal, session)
            if gone is not None:
                waiting.remove(gone)
        assert len(turns) == len(waiting)
