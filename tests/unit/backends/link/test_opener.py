"""The connector: the transports and eras to try, what it remembers, and the environment of a process."""

import pytest

from mcp_manifold.backends.http.transport import HttpTransport
from mcp_manifold.backends.link.negotiation import TransportKind
from mcp_manifold.backends.link.opener import Connector
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendUnavailable
from mcp_manifold.wire import Era
from tests.unit.backends.linking import new_link
from tests.unit.backends.running import Around

pytestmark = pytest.mark.anyio


def connector(**settings: object) -> Connector:
    given: dict[str, object] = {"name": "notes", **settings}
    if "command" not in given:
        given.setdefault("url", "http://127.0.0.1:9/mcp")
    return Connector(ServerSettings.model_validate(given), Around().surroundings())


async def test_a_transport_that_worked_is_tried_first() -> None:
    made = connector()
    made.learned("sse", "handshake")
    assert (made.kind, made.kinds()) == ("sse", ("sse", "http"))
    assert made.eras("http") == ("handshake", "modern")
    made.learned("http", "modern")
    assert (made.kinds(), made.eras("http")) == (("http", "sse"), ("modern", "handshake"))
    made.learned("sse", "handshake")
    assert repr(made) == "<Connector notes sse handshake>"


@pytest.mark.parametrize(
    ("settings", "kinds", "eras"),
    [
        ({"command": "x"}, ("stdio",), ("handshake", "modern")),
        ({"command": "x", "era": "modern"}, ("stdio",), ("modern",)),
        ({}, ("http", "sse"), ("modern", "handshake")),
        ({"era": "modern"}, ("http", "sse"), ("modern",)),
        ({"era": "handshake"}, ("http", "sse"), ("handshake",)),
        ({"transport": "streamable-http"}, ("http",), ("modern", "handshake")),
        ({"transport": "sse"}, ("sse",), ("handshake",)),
        ({"transport": "sse", "era": "modern"}, ("sse",), ("handshake",)),
    ],
)
async def test_the_transports_and_eras_to_try_follow_from_the_settings(
    settings: dict[str, object], kinds: tuple[TransportKind, ...], eras: tuple[Era, ...]
) -> None:
    made = connector(**settings)
    assert made.kinds() == kinds
    assert made.eras(kinds[0]) == eras


async def test_links_of_one_server_share_its_connections() -> None:
    made = connector(headers={"X-Key": "k"})
    first, second = await made.open("http", new_link()), await made.open("http", new_link())
    assert isinstance(first, HttpTransport)
    assert isinstance(second, HttpTransport)
    assert first._pool is second._pool
    await made.aclose()
    await made.aclose()


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_a_header_of_the_connection_is_refused(kind: TransportKind) -> None:
    made = connector(headers={"Host": "elsewhere"})
    with pytest.raises(BackendUnavailable, match="headers cannot be used: header 'Host': set by the connection itself"):
        await made.open(kind, new_link())
    await made.aclose()
