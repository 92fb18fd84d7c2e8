"""Who gets which link: the table of decisions, one line at a time."""

import pytest

from mcp_manifold.backends.isolation import PLAIN, SHARED, Isolation, Known, Place, place_of
from mcp_manifold.call import Session
from mcp_manifold.policy import Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload

ALICE = Principal("alice", "a1")
ABLE = '{"elicitation":{},"sampling":{}}'
ASKS = frozenset({"elicitation"})
OWN = Place("s1", exact=True)


def client(*, modern: bool = False, capabilities: str = ABLE, key: str = "s1") -> Session:
    version = MODERN_VERSION if modern else LATEST_HANDSHAKE
    return Session("" if modern else key, ALICE, "", version, capabilities=Payload(capabilities.encode()))


@pytest.mark.parametrize(
    ("session", "isolation", "known", "place"),
    [
        (client(), "shared", Known("stdio", "handshake", ASKS), SHARED),
        (client(), "shared", Known("http", "handshake"), SHARED),
        (client(), "client", Known("stdio", "handshake"), OWN),
        (client(), "client", Known("http", "modern"), OWN),
        (client(modern=True), "client", Known("stdio", "handshake"), Place("principal a1")),
        (client(key=""), "client", Known("stdio", "handshake"), SHARED),
        (client(), "auto", Known("http", "handshake"), OWN),
        (client(modern=True), "auto", Known("http", "handshake"), SHARED),
        (client(modern=True), "auto", Known("http", "handshake", ASKS), SHARED),
        (client(), "auto", Known("http", "modern"), Place("s1", exact=True, eras=("handshake",))),
        (client(), "auto", Known("http", "modern", has_handshake=False), SHARED),
        (client(modern=True), "auto", Known("http", "modern"), SHARED),
        (client(key=""), "auto", Known("http", "handshake"), SHARED),
        (client(), "auto", Known("stdio", "modern", ASKS), SHARED),
        (client(), "auto", Known("stdio", "handshake"), SHARED),
        (client(), "auto", Known("stdio", "handshake", ASKS), OWN),
        (client(capabilities="{}"), "auto", Known("stdio", "handshake", ASKS), PLAIN),
        (client(capabilities='{"roots":{}}'), "auto", Known("stdio", "handshake", ASKS), PLAIN),
        (client(modern=True), "auto", Known("stdio", "handshake"), SHARED),
        (client(modern=True), "auto", Known("stdio", "handshake", ASKS), Place("lent a1", exclusive=True)),
        (client(modern=True, capabilities="{}"), "auto", Known("stdio", "handshake", ASKS), PLAIN),
        (client(), "auto", Known("sse", "handshake"), OWN),
        (client(modern=True), "auto", Known("sse", "handshake"), SHARED),
        (client(modern=True), "auto", Known("sse", "handshake", ASKS), Place("lent a1", exclusive=True)),
    ],
)
def test_the_place_of_a_client(session: Session, isolation: Isolation, known: Known, place: Place) -> None:
    assert place_of(session, isolation, known) == place
