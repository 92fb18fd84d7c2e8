"""Resource subscriptions: which watcher watches which resource over which link. Bookkeeping only; sends nothing.

A watcher subscribes under a name, the public URI it knows. The subscription leads to a WatchTarget, the native URI on
one link of a backend. Several watchers, and several names of one watcher, may share a target: it is subscribed once,
with the first, and unsubscribed with the last. Every change returns the target that lost its last watcher, if any.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_PARENTS: Final = 64
"""Parent URIs that are checked for watchers when a resource changes: more than any honest path has."""
_ENDS: Final = "/?#"
"""Characters at which a parent URI may end."""

W = TypeVar("W", bound=Hashable)


@dataclass(frozen=True, slots=True)
class WatchTarget:
    """One resource of one backend, reported over the link with the key `location`."""

    backend: str
    location: str
    uri: str


@dataclass(frozen=True, slots=True)
class Watch(Generic[W]):
    """A watcher to notify, and the name under which it subscribed; empty if it watches a parent of the resource."""

    watcher: W
    name: str


class Subscriptions(Generic[W]):
    """The subscriptions of all watchers."""

    def __init__(self) -> None:
        self._names: dict[W, dict[str, WatchTarget]] = {}
        self._watches: dict[tuple[str, str], dict[str, dict[tuple[W, str], None]]] = {}

    def __repr__(self) -> str:
        return f"<Subscriptions watchers={len(self._names)} links={len(self._watches)}>"

    def count(self, watcher: W) -> int:
        """The number of subscriptions of a watcher."""
        return len(self._names.get(watcher, ()))

    def has(self, watcher: W, name: str) -> bool:
        """Whether the watcher has subscribed under `name`."""
        return name in self._names.get(watcher, ())

    def add(self, watcher: W, name: str, target: WatchTarget) -> WatchTarget | None:
        """Subscribe `watcher` to `target` under `name`; returns the name's previous target if nobody watches it now."""
        gone = self.remove(watcher, name)
        self._names.setdefault(watcher, {})[name] = target
        link = self._watches.setdefault((target.backend, target.location), {})
        link.setdefault(target.uri, {})[(watcher, name)] = None
        return None if gone == target else gone

    def remove(self, watcher: W, name: str) -> WatchTarget | None:
        """Unsubscribe `watcher` from `name`; returns the target if nobody watches it now."""
        names = self._names.get(watcher, {})
        target = names.pop(name, None)
        if target is None:
            return None
        if not names:
            del self._names[watcher]
        key = (target.backend, target.location)
        watches = self._watches[key][target.uri]
        del watches[(watcher, name)]
        if watches:
            return None
        del self._watches[key][target.uri]
        if not self._watches[key]:
            del self._watches[key]
        return target

    def leave(self, watcher: W) -> tuple[WatchTarget, ...]:
        """Remove a watcher; returns the targets that nobody watches now."""
        released = [self.remove(watcher, name) for name in list(self._names.get(watcher, ()))]
        return tuple(target for target in released if target is not None)

    def watched(self, backend: str, location: str) -> frozenset[str]:
        """The native URIs watched over one link."""
        return frozenset(self._watches.get((backend, location), ()))

    def elsewhere(self, backend: str, location: str) -> tuple[tuple[W, str, WatchTarget], ...]:
        """The subscriptions to a backend over links other than `location`: (watcher, name, target)."""
        found = [(watcher, name, target) for watcher, names in self._names.items() for name, target in names.items()]
        return tuple(each for each in found if each[2].backend == backend and each[2].location != location)

    def locations(self, backend: str) -> tuple[str, ...]:
        """The links of a backend with at least one subscription."""
        return tuple(location for name, location in self._watches if name == backend)

    def anyone(self, backend: str, location: str) -> W | None:
        """A watcher with a subscription over that link, any of them."""
        for watches in self._watches.get((backend, location), {}).values():
            return next(iter(watches))[0]
        return None

    def watching(self, target: WatchTarget) -> tuple[Watch[W], ...]:
        """The watchers of `target` or of a parent URI, each once (2025-11-25 schema, ResourceUpdatedNotification)."""
        link = self._watches.get((target.backend, target.location))
        if link is None:
            return ()
        exact = [Watch(watcher, name) for watcher, name in link.get(target.uri, ())]
        notified = {watch.watcher for watch in exact}
        above: dict[W, None] = {}
        for uri in _above(target.uri):
            above |= {watcher: None for watcher, _ in link.get(uri, ()) if watcher not in notified}
        return (*exact, *(Watch(watcher, "") for watcher in above))


def _above(uri: str) -> Iterator[str]:
    """The parent URIs of `uri`, nearest first: `a://b/` and `a://b` for `a://b/c`."""
    at = len(uri)
    for _ in range(MAX_PARENTS):
        at = max(uri.rfind(end, 0, at) for end in _ENDS)
        if at <= 0:
            return
        if at + 1 < len(uri):
            yield uri[: at + 1]
        yield uri[:at]
