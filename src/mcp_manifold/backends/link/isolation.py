"""Who gets which link of a backend (D9). Pure: settings, what was learnt of the backend and the client in; a place out.

Over HTTP a shared link tells from the stream which call provoked what the server sends, so it is only split to keep
clients' state apart. On a pipe or an event stream nothing tells; there a server that turned out to ask its clients
things gets a link for each client that can answer, and one for all alike who cannot, which says when it opens what
else they can do. A 2026-07-28 client has no session but its principal: it is lent links, one call at a time.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from mcp_manifold.model.call import Session
from mcp_manifold.wire import Era

Isolation = Literal["auto", "shared", "client"]


class LinkKey(NamedTuple):
    """A link, by who uses it. `key` is empty for the one everybody shares, whose listing is the backend's.

    `exclusive`: lent for one call at a time; there may be several, the first of which is home. `exact`: opened with the
    client's own identity and capabilities, not with everything we could relay. `only`: opened with these capabilities
    alone. `eras`: those to try instead of the backend's usual ones.
    """

    key: str = ""
    exclusive: bool = False
    exact: bool = False
    only: frozenset[str] | None = None
    eras: tuple[Era, ...] = ()

    @property
    def home(self) -> "LinkKey":
        """Where it belongs what is no call, subscriptions above all: the first of those that are lent."""
        return self._replace(exclusive=False) if self.exclusive else self


SHARED: Final = LinkKey()


def lent(key: str, number: int) -> str:
    """The key of one of the links that are lent; number 0 is home."""
    return f"{key}#{number}" if number else key


def home_of(key: str) -> str:
    """The key of the home that a link which is lent belongs to; itself for every other."""
    return key.partition("#")[0]


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """What is known of a backend: how it is spoken to, what it has asked its clients for, which eras it has."""

    kind: str
    era: Era
    asks: frozenset[str] = frozenset()
    has_handshake: bool = True
    """Whether a backend spoken to in the modern era may have the handshake as well."""


def link_key_of(session: Session, isolation: Isolation, known: BackendTraits) -> LinkKey:
    """The link that serves a session's calls."""
    if isolation == "shared":
        return SHARED
    if isolation == "client":
        return _own(session, known)
    if known.kind == "http":
        return _over_http(session, known)
    if known.era == "modern":
        return SHARED  # stateless: nothing is asked outside of results
    if known.kind == "sse" and session.key:
        return LinkKey(session.key, exact=True)
    if not known.asks:
        return SHARED
    if not session.wants & known.asks:
        return LinkKey(" ".join(("plain", *sorted(session.wants))), only=session.wants)
    return LinkKey(session.key, exact=True) if session.key else _own(session, known)


def is_always_shared(isolation: Isolation, known: BackendTraits) -> bool:
    """Whether `link_key_of` is the shared link for every session."""
    if isolation == "shared":
        return True
    return isolation == "auto" and known.kind == "stdio" and (known.era == "modern" or not known.asks)


def _own(session: Session, known: BackendTraits) -> LinkKey:
    """A link of the client's own; without a session to hold it by, of its principal."""
    if session.key or session.era != "modern":
        return LinkKey(session.key, exact=True) if session.key else SHARED
    tells = known.kind == "http" or known.era == "modern" or not session.wants & known.asks
    return LinkKey(f"principal {session.principal.key}", exclusive=not tells)


def _over_http(session: Session, known: BackendTraits) -> LinkKey:
    """One link a client session in the handshake era; a backend that has both eras is spoken to in the client's."""
    if not session.key or session.era == "modern":
        return SHARED
    if known.era == "handshake":
        return LinkKey(session.key, exact=True)
    return LinkKey(session.key, exact=True, eras=("handshake",)) if known.has_handshake else SHARED
