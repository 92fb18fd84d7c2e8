"""The link key of a client, by isolation setting, transport, eras and capabilities."""

import pytest

from mcp_manifold.backends.link.isolation import SHARED, BackendTraits, Isolation, LinkKey, link_key_of
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, MODERN_VERSION, Payload

ALICE = Principal("alice", "a1")
ABLE = '{"elicitation":{},"sampling":{}}'
ASKS = frozenset({"elicitation"})
OWN = LinkKey("s1", exact=True)
LENT = LinkKey("principal a1", exclusive=True)
PLAIN = LinkKey("plain", only=frozenset())
ROOTED = LinkKey("plain roots", only=frozenset({"roots"}))


def client(*, modern: bool = False, capabilities: str = ABLE, key: str = "s1") -> Session:
    version = MODERN_VERSION if modern else LATEST_HANDSHAKE
    return Session("" if modern else key, ALICE, "", version, capabilities=Payload(capabilities.encode()))


@pytest.mark.parametrize(
    ("session", "isolation", "known", "place"),
    [
        (client(), "shared", BackendTraits("stdio", "handshake", ASKS), SHARED),
        (client(), "shared", BackendTraits("http", "handshake"), SHARED),
        (client(), "client", BackendTraits("stdio", "handshake"), OWN),
        (client(), "client", BackendTraits("http", "modern"), OWN),
        (client(modern=True), "client", BackendTraits("stdio", "handshake"), LinkKey("principal a1")),
        (client(modern=True), "client", BackendTraits("stdio", "handshake", ASKS), LENT),
        (client(modern=True), "client", BackendTraits("http", "handshake", ASKS), LinkKey("principal a1")),
        (client(modern=True), "client", BackendTraits("stdio", "modern", ASKS), LinkKey("principal a1")),
        (
            client(modern=True, capabilities="{}"),
            "client",
            BackendTraits("stdio", "handshake", ASKS),
            LinkKey("principal a1"),
        ),
        (client(key=""), "client", BackendTraits("stdio", "handshake"), SHARED),
        (client(), "auto", BackendTraits("http", "handshake"), OWN),
        (client(modern=True), "auto", BackendTraits("http", "handshake"), SHARED),
        (client(modern=True), "auto", BackendTraits("http", "handshake", ASKS), SHARED),
        (client(), "auto", BackendTraits("http", "modern"), LinkKey("s1", exact=True, eras=("handshake",))),
        (client(), "auto", BackendTraits("http", "modern", has_handshake=False), SHARED),
        (client(modern=True), "auto", BackendTraits("http", "modern"), SHARED),
        (client(key=""), "auto", BackendTraits("http", "handshake"), SHARED),
        (client(), "auto", BackendTraits("stdio", "modern", ASKS), SHARED),
        (client(), "auto", BackendTraits("stdio", "handshake"), SHARED),
        (client(), "auto", BackendTraits("stdio", "handshake", ASKS), OWN),
        (client(capabilities="{}"), "auto", BackendTraits("stdio", "handshake", ASKS), PLAIN),
        (client(capabilities='{"roots":{}}'), "auto", BackendTraits("stdio", "handshake", ASKS), ROOTED),
        (client(capabilities='{"roots":{}}', modern=True), "auto", BackendTraits("stdio", "handshake", ASKS), ROOTED),
        (client(modern=True), "auto", BackendTraits("stdio", "handshake"), SHARED),
        (client(modern=True), "auto", BackendTraits("stdio", "handshake", ASKS), LENT),
        (client(modern=True, capabilities="{}"), "auto", BackendTraits("stdio", "handshake", ASKS), PLAIN),
        (client(), "auto", BackendTraits("sse", "handshake"), OWN),
        (client(modern=True), "auto", BackendTraits("sse", "handshake"), SHARED),
        (client(modern=True), "auto", BackendTraits("sse", "handshake", ASKS), LENT),
    ],
)
def test_the_link_key_of_a_client(session: Session, isolation: Isolation, known: BackendTraits, place: LinkKey) -> None:
    assert link_key_of(session, isolation, known) == place


def test_the_primary_of_an_exclusive_key_is_not_exclusive() -> None:
    assert LENT.primary == LinkKey("principal a1")
    assert (OWN.primary, SHARED.primary, PLAIN.primary) == (OWN, SHARED, PLAIN)
