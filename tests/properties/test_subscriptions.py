"""Subscriptions against a simple model: a set of (watcher, name, target)."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_manifold.model.subscriptions import Subscriptions, WatchTarget

WATCHERS = st.sampled_from(["ann", "bob", "cid"])
NAMES = st.sampled_from(["a://x", "a://x/y", "s+a://x"])
TARGETS = st.builds(
    WatchTarget,
    st.sampled_from(["one", "two"]),
    st.sampled_from(["", "held"]),
    st.sampled_from(["a://x", "a://x/y", "b:"]),
)


class Watches(RuleBasedStateMachine):
    """The set model, and the state of a backend that follows every action."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Subscriptions[str] = Subscriptions()
        self.model: dict[tuple[str, str], WatchTarget] = {}
        self.asked: set[WatchTarget] = set()

    def let_go(self, *targets: WatchTarget | None) -> None:
        for target in targets:
            if target is not None:
                self.asked.remove(target)  # fails for a target released twice or never subscribed

    @rule(watcher=WATCHERS, name=NAMES, what=TARGETS)
    def add(self, watcher: str, name: str, what: WatchTarget) -> None:
        released = self.made.add(watcher, name, what)
        self.model[(watcher, name)] = what
        self.let_go(released)
        self.asked.add(what)

    @rule(watcher=WATCHERS, name=NAMES)
    def remove(self, watcher: str, name: str) -> None:
        self.let_go(self.made.remove(watcher, name))
        self.model.pop((watcher, name), None)

    @rule(watcher=WATCHERS)
    def leave(self, watcher: str) -> None:
        self.let_go(*self.made.leave(watcher))
        self.model = {key: target for key, target in self.model.items() if key[0] != watcher}

    @invariant()
    def exactly_the_watched_targets_are_subscribed(self) -> None:
        assert self.asked == set(self.model.values())
        for backend in ("one", "two"):
            for place in ("", "held"):
                wanted = {each.uri for each in self.asked if (each.backend, each.location) == (backend, place)}
                assert self.made.watched(backend, place) == wanted
                assert (self.made.anyone(backend, place) is None) == (not wanted)
                assert (place in self.made.locations(backend)) == bool(wanted)

    @invariant()
    def every_watcher_of_a_target_is_notified_by_the_names_it_used(self) -> None:
        for target in set(self.model.values()):
            notified = {(watch.watcher, watch.name) for watch in self.made.watching(target) if watch.name}
            assert notified == {key for key, watched in self.model.items() if watched == target}
            above = {watch.watcher for watch in self.made.watching(target) if not watch.name}
            exact = {watcher for watcher, _ in notified}
            assert (
                above
                == {
                    watcher
                    for (watcher, _), watched in self.model.items()
                    if (watched.backend, watched.location) == (target.backend, target.location)
                    and target.uri.startswith(watched.uri + "/")
                }
                - exact
            )

    @invariant()
    def names_are_counted_and_found(self) -> None:
        assert all(self.made.has(*key) for key in self.model)
        for watcher in ("ann", "bob", "cid"):
            assert self.made.count(watcher) == len([key for key in self.model if key[0] == watcher])


TestWatches = Watches.TestCase
