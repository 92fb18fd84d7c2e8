"""Who watches which resource, and over which link: the bookkeeping alone. Knows no link, no client and no message.

Theory. A watcher asks under a name, the public URI it knows; what is watched is a Target, the backend's own URI on one
of its links. Several watchers, and several names of one watcher, may meet in one target: it is asked for once, at the
first, and let go at the last. Everything that changes answers with the target that nobody watches any more, if any.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_DEPTH: Final = 64
"""How far up a URI is looked for who watches something above it: deeper than any honest path."""
_ENDS: Final = "/?#"
"""Where a URI ends that another one goes on from."""

W = TypeVar("W", bound=Hashable)


@dataclass(frozen=True, slots=True)
class WatchTarget:
    """One resource of one backend, as one of its links reports it."""

    backend: str
    place: str
    uri: str


@dataclass(frozen=True, slots=True)
class Watch(Generic[W]):
    """A watcher to tell, and the name to tell it: its own, or empty for something below what it watches."""

    watcher: W
    name: str


class Subscriptions(Generic[W]):
    """See the module."""

    def __init__(self) -> None:
        self._names: dict[W, dict[str, WatchTarget]] = {}
        self._watches: dict[tuple[str, str], dict[str, dict[tuple[W, str], None]]] = {}

    def __repr__(self) -> str:
        return f"<Subscriptions watchers={len(self._names)} links={len(self._watches)}>"

    def count(self, watcher: W) -> int:
        """How many names a watcher watches."""
        return len(self._names.get(watcher, ()))

    def has(self, watcher: W, name: str) -> bool:
        """Whether it watches that name."""
        return name in self._names.get(watcher, ())

    def add(self, watcher: W, name: str, target: WatchTarget) -> WatchTarget | None:
        """Let `watcher` watch `target` under `name`; what the name meant before is watched no more."""
        gone = self.remove(watcher, name)
        self._names.setdefault(watcher, {})[name] = target
        link = self._watches.setdefault((target.backend, target.place), {})
        link.setdefault(target.uri, {})[(watcher, name)] = None
        return None if gone == target else gone

    def remove(self, watcher: W, name: str) -> WatchTarget | None:
        """Let `watcher` watch `name` no more; the target if it was the last to watch it."""
        names = self._names.get(watcher, {})
        target = names.pop(name, None)
        if target is None:
            return None
        if not names:
            del self._names[watcher]
        key = (target.backend, target.place)
        watches = self._watches[key][target.uri]
        del watches[(watcher, name)]
        if watches:
            return None
        del self._watches[key][target.uri]
        if not self._watches[key]:
            del self._watches[key]
        return target

    def leave(self, watcher: W) -> tuple[WatchTarget, ...]:
        """A watcher is gone: the targets it was the last to watch."""
        released = [self.remove(watcher, name) for name in list(self._names.get(watcher, ()))]
        return tuple(target for target in released if target is not None)

    def watched(self, backend: str, place: str) -> frozenset[str]:
        """The URIs that somebody watches over one link."""
        return frozenset(self._watches.get((backend, place), ()))

    def elsewhere(self, backend: str, place: str) -> tuple[tuple[W, str, WatchTarget], ...]:
        """Who watches a backend over another link than that one, under which name, and what."""
        found = [(watcher, name, target) for watcher, names in self._names.items() for name, target in names.items()]
        return tuple(each for each in found if each[2].backend == backend and each[2].place != place)

    def places(self, backend: str) -> tuple[str, ...]:
        """The links of a backend over which something is watched."""
        return tuple(place for name, place in self._watches if name == backend)

    def anyone(self, backend: str, place: str) -> W | None:
        """Somebody who watches something over that link."""
        for watches in self._watches.get((backend, place), {}).values():
            return next(iter(watches))[0]
        return None

    def watching(self, target: WatchTarget) -> tuple[Watch[W], ...]:
        """Whom a change of `target` concerns: who watches it, or something it is a part of. Nobody is told twice."""
        link = self._watches.get((target.backend, target.place))
        if link is None:
            return ()
        exact = [Watch(watcher, name) for watcher, name in link.get(target.uri, ())]
        told = {watch.watcher for watch in exact}
        above: dict[W, None] = {}
        for uri in _above(target.uri):
            above |= {watcher: None for watcher, _ in link.get(uri, ()) if watcher not in told}
        return (*exact, *(Watch(watcher, "") for watcher in above))


def _above(uri: str) -> Iterator[str]:
    """What `uri` may be a sub-resource of, the nearest first: `a://b/c` of `a://b/` and `a://b`."""
    at = len(uri)
    for _ in range(MAX_DEPTH):
        at = max(uri.rfind(end, 0, at) for end in _ENDS)
        if at <= 0:
            return
        if at + 1 < len(uri):
            yield uri[: at + 1]
        yield uri[:at]
