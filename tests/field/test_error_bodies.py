"""HTTP errors of gateways and identity providers, with the bodies they really send, are told as what they are."""

import pytest

from mcp_manifold.backends.http.exchange import ResponseHeaders
from mcp_manifold.backends.http.refusal import Refusal
from mcp_manifold.errors import BackendError, BackendProtocolError, BackendUnavailable, RemoteError
from tests.peers.backend import Fault, HttpBackend, Script, SseBackend, resource, tool
from tests.unit.backends.linking import Caller, within
from tests.unit.backends.running import over_web, running
from tests.unit.backends.serving import Server, over_http, replying, whole

pytestmark = pytest.mark.anyio

JSON = (("Content-Type", "application/json"),)
REJECTED = "the server rejected the credentials (HTTP 401"
PAGE = b"<!doctype html><html><head><title>\n Sign in &ndash; Acme</title></head>"


def refusal(status: int, body: bytes = b"", **headers: str) -> Refusal:
    """A refusal with these header fields."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Refusal(status, ResponseHeaders(pairs), body)


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        (refusal(401, b'{"error":"invalid_token","error_description":"expired"}'), BackendUnavailable,
         f"{REJECTED}): expired; check the configured headers"),
        (refusal(401, b"", www_authenticate='Bearer realm="x"'), BackendUnavailable,
         f'{REJECTED}, Bearer realm="x"); check the configured headers'),
        (refusal(401, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"no token"}}'), BackendUnavailable,
         f"{REJECTED}): no token; check the configured headers"),
        (refusal(403, b'{"error":{"code":403,"message":"forbidden"}}'), BackendUnavailable,
         "the server refused access (HTTP 403): forbidden; check the configured headers"),
        (refusal(429, b'{"error":"rate limited"}', retry_after="7"), BackendUnavailable,
         "rate limited by the server (HTTP 429): rate limited; try again in 7 s"),
        (refusal(429, b"", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), BackendUnavailable,
         "rate limited by the server (HTTP 429)"),
        (refusal(503, b'{"error":"no healthy upstream"}', retry_after="2"), BackendUnavailable,
         "the server answered HTTP 503 instead of MCP: no healthy upstream; try again in 2 s"),
        (refusal(500, b'{"jsonrpc":"2.0","error":"Internal Server Error"}'), BackendUnavailable,
         "the server answered HTTP 500 instead of MCP: Internal Server Error"),
        (refusal(422, b'{"detail":"a\\nb\\u0000c"}'), BackendProtocolError,
         "the server answered HTTP 422 instead of MCP: a bc"),
        (refusal(400, b"<h1>The plain HTTP request was sent to HTTPS port</h1>"), BackendProtocolError,
         "the server speaks TLS on that port (HTTP 400); use https:// in the url"),
        (refusal(400, b"Client sent an HTTP request to an HTTPS server.\n"), BackendProtocolError,
         "the server speaks TLS on that port (HTTP 400); use https:// in the url"),
        (refusal(200, PAGE, content_type="Text/HTML; charset=utf-8"), BackendProtocolError,
         "the server answered with a web page titled Sign in &ndash; Acme (HTTP 200, text/html), not MCP; "
         "check the url and the headers"),
        (refusal(200, b"ok"), BackendProtocolError, "the server answered with no content type (HTTP 200), not MCP"),
    ],
    ids=lambda value: f"{value.status}" if isinstance(value, Refusal) else None,
)  # fmt: skip
async def test_a_refusal_is_told_with_its_status_and_the_servers_words(
    refused: Refusal, kind: type[BackendError], message: str
) -> None:
    failed = refused.error("notes", "handshake")
    assert isinstance(failed, BackendError)
    assert (type(failed), failed.message, failed.status) == (kind, message, refused.status)


@pytest.mark.parametrize(
    "error", ['{"code":"E1","message":"x"}', '{"code":1.5,"message":"x"}', '{"code":1}', '"x"', "null"]
)
async def test_what_looks_like_a_json_rpc_error_but_is_none_is_its_status(error: str) -> None:
    failed = refusal(503, b'{"jsonrpc":"2.0","id":1,"error":%b}' % error.encode()).error("notes", "handshake")
    assert isinstance(failed, BackendUnavailable)


async def test_a_json_rpc_error_is_relayed_whatever_its_status() -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no such city","data":[1]}}'
    for status in (400, 403, 404, 429, 500):
        failed = refusal(status, body).error("notes", "handshake")
        assert isinstance(failed, RemoteError)
        assert failed.raw == b'{"code":-32602,"message":"no such city","data":[1]}'


async def test_the_seconds_of_a_retry_after_are_passed_on_and_awaited() -> None:
    busy = Fault(503, b"", (("Retry-After", "7"),), method="resources/read")
    script = Script(era="handshake", get_stream=False, resources=(resource("note:///a"),))
    async with (
        HttpBackend(script) as server,
        running(over_web(server.url, transport="http", isolation="shared")) as run,
    ):
        await run.listed()
        server.fail(busy)
        with pytest.raises(BackendUnavailable) as caught:
            await run.request(Caller().call("resources/read", uri="note:///a"))
        assert caught.value.data()["nextAttemptInSeconds"] == 7.0
        assert run.backend.executor.retries == 0, "it is not asked again within the 7 s"


@pytest.mark.parametrize("kind", ["http", "sse"])
async def test_failures_by_status_open_the_circuit_breaker(kind: str) -> None:
    script = Script(era="handshake", get_stream=False, tools=(tool("echo"),))
    made = HttpBackend(script) if kind == "http" else SseBackend(script)
    async with made as server:
        settings = over_web(server.url, transport=kind, isolation="shared", breaker={"failures": 3})
        async with running(settings) as run:
            await run.listed()
            server.fail(Fault(503, b'{"error":"no healthy upstream"}', JSON, method="tools/call", times=0))
            for _ in range(3):
                with pytest.raises(BackendUnavailable):
                    await run.echo()
            with pytest.raises(BackendUnavailable, match="circuit breaker open"):
                await run.echo()


async def test_a_login_page_instead_of_an_answer_is_named() -> None:
    async with Server(replying(whole(200, PAGE, kind="text/html"))) as server, over_http(server.url) as (link, _):
        with pytest.raises(BackendProtocolError, match=r"web page titled Sign in .*text/html"):
            await within(link.request("tools/call", {}, timeout=30))
        assert not link.ended.done()
