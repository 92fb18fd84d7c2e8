"""The Streamable HTTP transport: replies, request headers, resumption, sessions, and failures of the server."""

import asyncio
import base64

import pytest

from mcp_manifold.backends.http.streams import RESUME_CEILING
from mcp_manifold.backends.http.transport import GOODBYE, MAX_RESUMES
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest, settle_future
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
    SessionExpired,
)
from mcp_manifold.model.call import Call
from mcp_manifold.wire import MODERN_VERSION, Payload, modern_stamp
from tests.fakes.clock import FakeClock
from tests.fakes.hostile_http import Peer
from tests.unit.backends.linking import Caller, Heard, raw, tool, within
from tests.unit.backends.serving import (
    Act,
    Asked,
    Server,
    answer,
    chunk,
    event,
    holding,
    opening,
    over_http,
    plain,
    replying,
    stream,
    whole,
)

pytestmark = pytest.mark.anyio

BIG = b'{"x":"' + b"x" * 200_000 + b'"}'


async def ask(link: Link, method: str = "tools/call", *, timeout: float = 30.0, **params: object) -> Payload:
    result: Payload = await within(link.request(method, raw(**params) if params else tool("echo"), timeout=timeout))
    return result


async def failure(link: Link, method: str = "tools/call", *, timeout: float = 30.0) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await ask(link, method, timeout=timeout)
    return caught.value


def send(link: Link, call: Call) -> tuple[PendingRequest, "asyncio.Future[Payload]"]:
    """A client's call, sent over the link, and its outcome."""
    outcome: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
    return link.send(call.method, call.params, settle_future(outcome), timeout=30, call=call), outcome


def streaming(*before: bytes, closed: bool = True) -> Act:
    """Send these events and the answer."""

    async def act(peer: Peer, asked: Asked) -> None:
        await peer.send(stream(*before, event(answer(asked))) + (chunk(b"") if closed else b""))

    return act


# --- replies -------------------------------------------------------------------------------------------------------


async def test_a_json_reply_is_the_answer() -> None:
    async with Server() as server, over_http(server.url) as (link, _):
        assert bytes(await ask(link)) == b"{}"
        assert server.asked[0].headers["accept"] == "application/json, text/event-stream"
        assert server.asked[0].headers["content-type"] == "application/json"
        assert not {"mcp-method", "mcp-name"} & set(server.asked[0].headers), "only modern requests mirror them"
    assert [asked.method for asked in server.asked] == ["POST"], "without a session there is nothing to delete"


async def test_an_event_stream_brings_notifications_and_then_the_answer() -> None:
    heard = Heard()
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}'
    async with Server(streaming(event(note))) as server, over_http(server.url, heard=heard) as (link, _):
        call = Caller().call(name="echo")
        await within(send(link, call)[1])
        assert heard.notes == [("notifications/message", b'{"level":"info"}', call)]


async def test_an_error_reply_with_a_json_rpc_error_is_that_error() -> None:
    error = b'{"code":-32601,"message":"no such method","data":{"x":null}}'
    body = b'{"jsonrpc":"2.0","id":null,"error":%b}' % error
    async with Server(replying(whole(400, body))) as server, over_http(server.url) as (link, _):
        with pytest.raises(RemoteError) as caught:
            await ask(link)
        assert (caught.value.raw, caught.value.code) == (error, -32601)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, BackendUnavailable, "the server rejected the credentials (HTTP 401); check the configured headers"),
        (403, BackendUnavailable, "the server refused access (HTTP 403); check the configured headers"),
        (404, BackendProtocolError, "no MCP endpoint at that URL (HTTP 404); check the url"),
        (405, BackendProtocolError, "no Streamable HTTP endpoint at that URL (HTTP 405); check the url"),
        (429, BackendUnavailable, "rate limited by the server (HTTP 429)"),
        (500, BackendUnavailable, "the server answered HTTP 500 instead of MCP"),
        (502, BackendUnavailable, "the server answered HTTP 502 instead of MCP"),
        (202, BackendProtocolError, "the server answered HTTP 202 instead of MCP"),
    ],
)
@pytest.mark.parametrize("page", [b"<h1>no</h1>", b"<h1>no</h1>" * 20_000], ids=["small", "large"])
async def test_a_status_instead_of_an_answer_is_told_in_words(
    status: int, kind: type[BackendError], words: str, page: bytes
) -> None:
    async with Server(replying(whole(status, page, kind="text/html"))) as server, over_http(server.url) as (link, _):
        failed = await failure(link)
        assert (type(failed), failed.message, failed.status) == (kind, words, status)
        assert not link.ended.done()
        assert bytes(await ask(link)) == b"{}"


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (whole(200, b'{"jsonrpc":"2.0","id":77,"result":{}}'), "not the response to the request"),
        (whole(200, b'{"jsonrpc":"2.0","id":'), "its answer is not valid JSON"),
        (whole(200, b"pong", kind="text/plain"), "the server answered with text/plain (HTTP 200), not MCP"),
    ],
)
async def test_a_reply_that_is_no_answer_to_the_request_is_refused(reply: bytes, message: str) -> None:
    async with Server(replying(reply)) as server, over_http(server.url) as (link, _):
        failed = await failure(link)
        assert isinstance(failed, BackendProtocolError)
        assert message in failed.message


@pytest.mark.parametrize("kind", ["json", "event"])
async def test_a_reply_over_the_limit_costs_only_its_caller(kind: str) -> None:
    async def big(peer: Peer, asked: Asked) -> None:
        body = answer(asked, BIG)
        await peer.send(whole(200, body) if kind == "json" else stream(event(body), b""))

    async with Server(big) as server, over_http(server.url, max_message=100_000) as (link, _):
        failed = await failure(link)
        assert isinstance(failed, BackendProtocolError)
        assert "larger than the message limit" in failed.message
        assert bytes(await ask(link)) == b"{}"


@pytest.mark.parametrize("closed", [True, False])
async def test_a_stream_may_be_longer_than_the_message_limit_and_stay_open(closed: bool) -> None:
    note = event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"x":"%b"}}' % (b"x" * 50_000))
    act = streaming(*[note] * 10, closed=closed)
    async with Server(act) as server, over_http(server.url, max_message=100_000) as (link, _):
        assert bytes(await ask(link)) == b"{}"


# --- broken connections ---------------------------------------------------------------------------------------------


async def resetting(peer: Peer, asked: Asked) -> None:
    peer.reset()


async def half_a_reply(peer: Peer, asked: Asked) -> None:
    await peer.send(whole(200, answer(asked))[:-5])
    peer.reset()


@pytest.mark.parametrize("act", [resetting, half_a_reply])
async def test_a_reset_with_the_request_in_flight_leaves_its_outcome_unknown(act: Act) -> None:
    async with Server(act) as server, over_http(server.url) as (link, _):
        failed = await failure(link)
        assert isinstance(failed, BackendLost)
        assert "outcome is unknown" in failed.message
        assert len(server.asked) == 1
        assert bytes(await ask(link)) == b"{}"


async def test_a_refused_connection_is_unavailable_and_nothing_was_sent() -> None:
    async with Server() as server:
        url = server.url
    async with over_http(url) as (link, _):
        failed = await failure(link)
        assert isinstance(failed, BackendUnavailable)
        assert "refused" in failed.message


async def test_a_stream_cut_without_event_ids_is_lost() -> None:
    async with Server(replying(stream(event(b"")) + chunk(b""))) as server, over_http(server.url) as (link, _):
        failed = await failure(link)
        assert isinstance(failed, BackendLost)
        assert failed.message == "the server ended its reply without a response; the outcome is unknown"
        assert len(server.asked) == 1


async def test_a_silent_stream_of_a_request_without_a_timeout_is_lost_and_closed() -> None:
    note = b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
    silent, closed = holding(stream(event(note)))
    clock, heard = FakeClock(), Heard()
    async with Server(silent) as server, over_http(server.url, clock=clock, heard=heard) as (link, _):
        asked = link.begin("subscriptions/listen", {})
        await heard.first("notifications/message")
        await clock.advance(30)
        with pytest.raises(BackendTimeout, match="event stream idle for 30 s"):
            await within(asked.future)
        await within(closed.wait())


# --- resumption -----------------------------------------------------------------------------------------------------


async def cutting(peer: Peer, asked: Asked) -> None:
    """A stream with an id and a delay of no time, ended before the answer."""
    await peer.send(stream(b"id: ev-1\nretry: 0\ndata:\n\n") + chunk(b""))


@pytest.mark.parametrize("second", [cutting, resetting])
async def test_a_stream_with_event_ids_is_resumed_where_it_broke_until_the_answer_comes(second: Act) -> None:
    late = replying(stream(event(b'{"jsonrpc":"2.0","id":1,"result":{"late":true}}')) + chunk(b""))
    async with Server(cutting, second, late) as server, over_http(server.url) as (link, _):
        assert bytes(await ask(link)) == b'{"late":true}'
        assert [asked.method for asked in server.asked] == ["POST", "GET", "GET"]
        for resumed in server.asked[1:]:
            assert resumed.headers["last-event-id"] == "ev-1"
            assert resumed.headers["accept"] == "text/event-stream"


async def test_resuming_without_end_is_given_up() -> None:
    bare = replying(stream(b"retry: 0\n\n") + chunk(b""))
    clock = FakeClock()
    async with Server(cutting, rest=bare) as server, over_http(server.url, clock=clock) as (link, _):
        asked = asyncio.ensure_future(failure(link))
        while not asked.done():
            await clock.advance(RESUME_CEILING)
        assert isinstance(await asked, BackendLost)
        assert len(server.asked) == 1 + MAX_RESUMES


@pytest.mark.parametrize("status", [400, 404, 405, 500])
async def test_a_refused_resumption_loses_the_call_and_does_not_count_as_unread(status: int) -> None:
    async with Server(opening(), cutting, replying(whole(status))) as server, over_http(server.url) as (link, _):
        await ask(link, "initialize")
        failed = await failure(link)
        assert type(failed) is BackendLost
        assert "outcome is unknown" in failed.message


async def test_a_cancelled_call_is_not_resumed() -> None:
    half, _ = holding(stream(b"id: ev-1\nretry: 0\ndata:\n\n"))
    async with Server(half, rest=replying(whole(202))) as server, over_http(server.url) as (link, _):
        pending, outcome = send(link, Caller().call(name="slow"))
        await server.heard(1)
        link.abandon(pending, None)
        with pytest.raises(CallCancelled):
            await within(outcome)
        cancelled = await server.heard(2)
        assert (cancelled.message["method"], cancelled.method) == ("notifications/cancelled", "POST")
    assert [asked.method for asked in server.asked] == ["POST", "POST"]


# --- sessions -------------------------------------------------------------------------------------------------------


async def test_the_session_id_and_the_agreed_revision_go_with_everything_and_a_delete_ends_it() -> None:
    async with Server(opening(), rest=plain) as server, over_http(server.url, headers={"X-Key": "k"}) as (link, _):
        await ask(link, "initialize")
        link.adopt("2025-06-18", Payload(b"{}"))
        await ask(link)
        note = link.notify("notifications/initialized")
        assert note is not None
        await server.heard(3)
    first, call, told, goodbye = server.asked
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    for asked in (call, told, goodbye):
        assert asked.headers["mcp-session-id"] == "s-1"
        assert asked.headers["mcp-protocol-version"] == "2025-06-18"
        assert asked.headers["x-key"] == "k"
    assert goodbye.method == "DELETE"


@pytest.mark.parametrize("odd", ["s\x7f1", "s\xe91"])
async def test_a_session_id_that_cannot_be_a_header_is_not_used(odd: str) -> None:
    async def act(peer: Peer, asked: Asked) -> None:
        reply = whole(200, answer(asked), "Mcp-Session-Id: @")
        await peer.send(reply.replace(b"@", odd.encode("latin-1")))

    async with Server(act) as server, over_http(server.url) as (link, transport):
        await within(asyncio.gather(ask(link, "initialize"), return_exceptions=True))
        assert not transport.has_session


async def test_404_ends_the_session_and_leaves_the_call_unread() -> None:
    async with Server(opening(), replying(whole(404))) as server, over_http(server.url) as (link, _):
        await ask(link, "initialize")
        assert isinstance(await failure(link), SessionExpired)
        assert link.ended.done()
        assert isinstance(link.ended.result(), SessionExpired)


async def test_a_delete_without_an_answer_does_not_delay_closing() -> None:
    clock = FakeClock()
    async with Server(opening(), holding()[0]) as server, over_http(server.url, clock=clock) as (link, transport):
        await ask(link, "initialize")
        closing = asyncio.ensure_future(transport.aclose())
        await server.heard(1, "DELETE")
        await clock.advance(GOODBYE)
        await within(closing)
        assert [asked.method for asked in server.asked] == ["POST", "DELETE"]


async def test_closing_fails_requests_in_flight() -> None:
    async with Server(holding()[0]) as server, over_http(server.url) as (link, transport):
        asked = asyncio.ensure_future(ask(link))
        await server.heard(1)
        await within(transport.aclose())
        with pytest.raises(BackendLost, match="the connection was closed"):
            await within(asked)


# --- credentials ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_s20_a_redirect_is_not_followed_and_credentials_go_nowhere_else(status: int) -> None:
    async with Server() as elsewhere:
        there = replying(whole(status, b"", f"location: {elsewhere.url}"))
        async with Server(there) as server, over_http(server.url, headers={"Authorization": "Bearer x"}) as (link, _):
            assert f"HTTP {status}" in (await failure(link)).message
        assert elsewhere.accepted == 0


async def test_no_secret_is_in_the_repr() -> None:
    async with Server() as server, over_http(server.url, headers={"Authorization": "Bearer hush"}) as (_, transport):
        assert "hush" not in repr(transport)


# --- the modern era -------------------------------------------------------------------------------------------------


def modern(link: Link) -> None:
    link.stamp(modern_stamp(Payload(b'{"name":"me","version":"1"}'), Payload(b"{}")))
    link.adopt(MODERN_VERSION, Payload(b"{}"))


@pytest.mark.parametrize(
    ("method", "key", "value", "mirrored"),
    [
        ("tools/call", "name", "echo", "echo"),
        ("prompts/get", "name", "two words", "two words"),
        ("resources/read", "uri", "file:///a%20b", "file:///a%20b"),
        ("tools/call", "name", "grüße", "=?base64?" + base64.b64encode("grüße".encode()).decode() + "?="),
        ("tools/call", "name", "a\r\nX-Evil: 1", "=?base64?" + base64.b64encode(b"a\r\nX-Evil: 1").decode() + "?="),
        ("tools/list", "cursor", "c", None),
    ],
)
async def test_modern_requests_mirror_method_and_name(method: str, key: str, value: str, mirrored: str | None) -> None:
    async with Server() as server, over_http(server.url) as (link, _):
        modern(link)
        await within(link.request(method, raw(**{key: value}), timeout=30))
        headers = server.asked[0].headers
        assert (headers["mcp-method"], headers.get("mcp-name")) == (method, mirrored)
        assert headers["mcp-protocol-version"] == MODERN_VERSION
        assert "x-evil" not in headers


async def test_the_headers_of_few_tools_are_remembered() -> None:
    async with Server() as server, over_http(server.url, max_tools=2) as (link, transport):
        modern(link)
        for name in ("a", "b", "a", "c", "a"):
            await within(link.request("tools/call", raw(name=name), timeout=30))
        assert [asked.headers["mcp-name"] for asked in server.asked] == ["a", "b", "a", "c", "a"]
        assert len(transport._tools) <= 2


async def test_modern_calls_carry_the_parameters_a_tool_asks_for() -> None:
    async with Server() as server, over_http(server.url) as (link, _):
        modern(link)
        link.mirror(lambda name, arguments: {"mcp-param-region": f"{name} {bytes(arguments).decode()}"})
        await ask(link, name="echo", arguments={"a": 1})
        assert server.asked[0].headers["mcp-param-region"] == 'echo {"a":1}'


async def test_a_modern_call_is_cancelled_by_closing_its_connection() -> None:
    hang, closed = holding()
    async with Server(hang) as server, over_http(server.url) as (link, _):
        modern(link)
        pending, outcome = send(link, Caller().call(name="slow"))
        await server.heard(1)
        link.abandon(pending, None)
        with pytest.raises(CallCancelled):
            await within(outcome)
        await within(closed.wait())
        assert len(server.asked) == 1
