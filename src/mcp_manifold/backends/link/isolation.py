"""Isolation: which client uses which link of a backend (D9). Pure: settings, backend traits and session in; a key out.

Over HTTP the response stream tells which call caused a server request, so links are split only to keep clients' state
apart. On a pipe or an SSE stream nothing tells. A server there that sends requests gets one link for each client that
can answer them. All other clients share one link per set of capabilities. A modern client has no session, only a
principal: it leases links, for one call at a time.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from mcp_manifold.model.call import Session
from mcp_manifold.wire import Era

Isolation = Literal["auto", "shared", "client"]


class LinkKey(NamedTuple):
    """Names a link by the clients that use it. `key` is empty for the shared link, which gives the backend's Listing.

    `exclusive`: leased for one call at a time; of several such links the first is the primary. `exact`: opened with the
    client's own identity and capabilities, instead of everything that can be relayed. `only`: opened with these
    capabilities alone. `eras`: tried in place of the backend's usual ones.
    """

    key: str = ""
    exclusive: bool = False
    exact: bool = False
    only: frozenset[str] | None = None
    eras: tuple[Era, ...] = ()

    @property
    def primary(self) -> "LinkKey":
        """The key for all messages but calls, such as subscriptions. Of leased links, it names the first."""
        return self._replace(exclusive=False) if self.exclusive else self


SHARED: Final = LinkKey()


def leased(key: str, number: int) -> str:
    """The key of a leased link; number 0 is the primary."""
    return f"{key}#{number}" if number else key


def primary_of(key: str) -> str:
    """The key of the primary among leased links; any other key unchanged."""
    return key.partition("#")[0]


@dataclass(frozen=True, slots=True)
class BackendTraits:
    """What isolation depends on: transport, era, and the capabilities that the backend asked its clients for."""

    kind: str
    era: Era
    asks: frozenset[str] = frozenset()
    has_handshake: bool = True
    """Whether a backend in the modern era may speak the handshake era too."""


def link_key_of(session: Session, isolation: Isolation, known: BackendTraits) -> LinkKey:
    """The key of the link for a session's calls."""
    if isolation == "shared":
        return SHARED
    if isolation == "client":
        return _own(session, known)
    if known.kind == "http":
        return _over_http(session, known)
    if known.era == "modern":
        return SHARED  # stateless: it sends no requests outside of results
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
    """A link for this client alone: for its session, or without one for its principal."""
    if session.key or session.era != "modern":
        return LinkKey(session.key, exact=True) if session.key else SHARED
    tells = known.kind == "http" or known.era == "modern" or not session.wants & known.asks
    return LinkKey(f"principal {session.principal.key}", exclusive=not tells)


def _over_http(session: Session, known: BackendTraits) -> LinkKey:
    """One link per session for handshake clients, in the handshake era if the backend has both."""
    if not session.key or session.era == "modern":
        return SHARED
    if known.era == "handshake":
        return LinkKey(session.key, exact=True)
    return LinkKey(session.key, exact=True, eras=("handshake",)) if known.has_handshake else SHARED
