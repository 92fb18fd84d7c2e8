"""Who gets which link of a backend (D9). Pure: settings, what was learnt of the backend and the client in; a place out.

Over HTTP a shared link tells from the stream which call provoked what the server sends, so it is only split to keep
clients' state apart. On a pipe or an event stream nothing tells; there a server that turned out to ask its clients
things gets a link for each client that can answer, and one for all who cannot, which says so when it opens.
"""

from dataclasses import dataclass
from typing import Final, Literal

from mcp_manifold.call import Session
from mcp_manifold.wire import Era

Isolation = Literal["auto", "shared", "client"]


@dataclass(frozen=True, slots=True)
class Place:
    """A link, by who uses it. `key` is empty for the one everybody shares, whose listing is the backend's.

    `exclusive`: lent for one call at a time. `exact`: opened with the client's own identity and capabilities, not with
    everything we could relay. `eras`: those to try instead of the backend's usual ones.
    """

    key: str = ""
    exclusive: bool = False
    exact: bool = False
    eras: tuple[Era, ...] = ()


SHARED: Final = Place()
PLAIN: Final = Place("plain", exact=True)
"""For all clients that can answer nothing a server might ask."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a backend: how it is spoken to, what it has asked its clients for, which eras it has."""

    kind: str
    era: Era
    asks: frozenset[str] = frozenset()
    has_handshake: bool = True
    """Whether a backend spoken to in the modern era may have the handshake as well."""


def place_of(session: Session, isolation: Isolation, known: Known) -> Place:
    """The link that serves a session's calls."""
    if isolation == "shared":
        return SHARED
    if isolation == "client":
        key = session.key or (f"principal {session.principal.key}" if session.era == "modern" else "")
        return Place(key, exact=bool(session.key)) if key else SHARED
    if known.kind == "http":
        return _over_http(session, known)
    if known.era == "modern":
        return SHARED  # stateless: nothing is asked outside of results
    if known.kind == "sse" and session.key:
        return Place(session.key, exact=True)
    if not known.asks:
        return SHARED
    if not session.wants & known.asks:
        return PLAIN
    if session.key:
        return Place(session.key, exact=True)
    return Place(f"lent {session.principal.key}", exclusive=True)


def _over_http(session: Session, known: Known) -> Place:
    """One link a client session in the handshake era; a backend that has both eras is spoken to in the client's."""
    if not session.key or session.era == "modern":
        return SHARED
    if known.era == "handshake":
        return Place(session.key, exact=True)
    return Place(session.key, exact=True, eras=("handshake",)) if known.has_handshake else SHARED
