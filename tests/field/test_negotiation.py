"""Clients that begin with what is left of earlier sessions, or with revisions that nobody knows."""

from typing import Any

import pytest

from mcp_manifold.wire import HANDSHAKE_VERSIONS, MODERN_VERSION
from tests.unit.fronts.fakes import (
    META,
    Client,
    FakeGateway,
    encoded,
    front,
    initialize,
    note,
    prepared,
    request,
    scripted,
)
from tests.unit.fronts.test_stdio import serving

pytestmark = pytest.mark.anyio

VERSIONS = ["2099-01-01", "", "draft", MODERN_VERSION, "2025-06-18", "DRAFT-2026-v1"]
TOKENS = [{"name": name, "token": f"token-of-{name}"} for name in ("alice", "bob")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("has_stale_id", [True, False])
async def test_initialize_negotiates_whatever_its_headers_say(version: str, has_stale_id: bool) -> None:
    gateway, client = prepared()
    ended = await client.session()
    await ended.delete()
    headers = [("mcp-protocol-version", version), *(ended.headers * has_stale_id)]
    answer = await client.call(initialize("2025-06-18"), headers=headers)
    assert answer.status == 200
    assert answer.header("mcp-session-id") not in (None, ended.id)
    assert gateway.calls[-1].session.version == "2025-06-18"


async def test_initialize_with_an_id_of_another_client_opens_a_session_of_its_own() -> None:
    app = front(FakeGateway(tokens=TOKENS))
    alice, bob = (Client(app, authorization=f"Bearer token-of-{name}") for name in ("alice", "bob"))
    session = await alice.session()
    answer = await bob.call(initialize(), headers=session.headers)
    assert answer.status == 200
    assert answer.header("mcp-session-id") != session.id
    assert (await session.call(request("ping"))).status == 200


@pytest.mark.parametrize("version", ["2099-01-01", "", "draft"])
async def test_a_later_request_of_an_unsupported_revision_is_told_the_supported_ones(version: str) -> None:
    gateway, client = prepared()
    session = await client.session()
    headers = [*session.headers, ("mcp-protocol-version", version)]
    before = len(gateway.calls)
    for params in ({}, {"_meta": {"progressToken": 1}}):
        answer = await client.call(request("ping", 7, **params), headers=headers)
        assert (answer.status, answer.error, answer.json["id"]) == (400, -32022, 7)
        assert answer.json["error"]["data"]["supported"] == [MODERN_VERSION, *HANDSHAKE_VERSIONS]
        assert all(each in answer.json["error"]["message"] for each in HANDSHAKE_VERSIONS)
    assert (await client.call(note("notifications/initialized"), headers=headers)).status == 400
    assert (await client.send("GET", "/mcp", headers=headers)).status == 400
    assert len(gateway.calls) == before


async def test_a_modern_initialize_is_no_handshake() -> None:
    _, client = prepared()
    lines = [("mcp-protocol-version", MODERN_VERSION), ("mcp-method", "initialize")]
    answer = await client.call(request("initialize", _meta=META), headers=lines)
    assert answer.header("mcp-session-id") is None


@pytest.mark.parametrize("size", [0, 50_000])
@pytest.mark.parametrize("way", ["http", "sse", "stdio"])
async def test_a_byte_order_mark_before_a_message_is_skipped(way: str, size: int) -> None:
    gateway = scripted()
    message: Any = b"\xef\xbb\xbf" + encoded({**initialize(), "id": 5, "x": "y" * size} if size else initialize(id_=5))
    if way == "stdio":
        async with serving(gateway) as (peer, _):
            peer.send(message)
            assert (await peer.receive())["id"] == 5
        return
    client = Client(front(gateway))
    if way == "http":
        assert (await client.call(message)).json["id"] == 5
        assert (await client.call(b"\xef\xbb\xbf" * 1000 + message)).error == -32700
        return
    async with client.open("GET", "/sse") as stream:
        opened = await stream.until(lambda answer: b"\n\n" in answer.body)
        path, _, query = opened.body.split(b"data: ")[1].decode().strip().partition("?")
        assert (await client.send("POST", path, message, query=query.encode())).status == 202
        assert (await stream.until(lambda answer: len(answer.events) == 1)).events[0]["id"] == 5
