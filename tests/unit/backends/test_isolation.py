"""Who gets which link: the table of decisions, one line at a time."""

import pytest

from mcp_manifold.backends.isolation import SHARED, Isolation, Known, Place, place_of
from mcp_manifold.call import Session
from mcp_manifold.policy import Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload

ALICE = Principal("alice", "a1")
ABLE = '{"elicitation":{},"sampling":{}}'
ASKS = frozenset({"elicitation"})
OWN = Place("s1", exact=True)
LENT = Place("principal a1", exclusive=True)
PLAIN = Place("plain", only=frozenset())
ROOTED = Place("plain roots", only=frozenset({"roots"}))


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
        (client(modern=True), "client", Known("stdio", "handshake", ASKS), LENT),
        (client(modern=True), "client", Known("http", "handshake", ASKS), Place("principal a1")),
        (client(modern=True), "client", Known("stdio", "modern", ASKS), Place("principal a1")),
        (client(modern=True, capabilities="{}"), "client", Known("stdio", "handshake", ASKS), Place("principal a1")),
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
        (client(capabilities='{"roots":{}}'), "auto", Known("stdio", "handshake", ASKS), ROOTED),
        (client(capabilities='{"roots":{}}', modern=True), "auto", Known("stdio", "handshake", ASKS), ROOTED),
        (client(modern=True), "auto", Known("stdio", "handshake"), SHARED),
        (client(modern=True), "auto", Known("stdio", "handshake", ASKS), LENT),
        (client(modern=True, capabilities="{}"), "auto", Known("stdio", "handshake", ASKS), PLAIN),
        (client(), "auto", Known("sse", "handshake"), OWN),
        (client(modern=True), "auto", Known("sse", "handshake"), SHARED),
        (client(modern=True), "auto", Known("sse", "handshake", ASKS), LENT),
    ],
)
def test_the_place_of_a_client(session: Session, isolation: Isolation, known: Known, place: Place) -> None:
    assert place_of(session, isolation, known) == place


def test_what_is_no_call_is_at_home_on_the_first_of_the_links_that_are_lent() -> None:
    assert LENT.home == Place("principal a1")
    assert (OWN.home, SHARED.home, PLAIN.home) == (OWN, SHARED, PLAIN)
