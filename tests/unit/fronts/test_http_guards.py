"""The guards in front of every endpoint."""

import json

import pytest

from mcp_manifold.fronts.http.guard import Tokens
from mcp_manifold.wire import Payload
from tests.unit.fronts.fakes import Client, FakeGateway, front, initialize, modern, request

pytestmark = pytest.mark.anyio

PATHS = ["/mcp", "/sse", "/messages", "/alpha/mcp", "/health", "/metrics", "/nowhere", "/.well-known/x"]
SECRET = "s3cret-token-of-alice"
REMOTE = {"host": "0.0.0.0", "tokens": [{"name": "alice", "token": SECRET}, {"name": "bob", "token": "other-token"}]}


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


@pytest.mark.parametrize("path", PATHS)
async def test_s1_a_foreign_host_is_refused_everywhere(path: str) -> None:
    gateway = FakeGateway()
    answer = await Client(front(gateway), host="evil.test").send("GET", path)
    assert answer.status == 403
    assert answer.json["jsonrpc"] == "2.0"
    assert not gateway.calls


@pytest.mark.parametrize("path", PATHS)
async def test_s1_a_foreign_origin_is_refused_everywhere(path: str) -> None:
    answer = await Client(front(FakeGateway()), origin="http://evil.test").send("GET", path)
    assert answer.status == 403
    assert answer.header("access-control-allow-origin") is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://localhost.evil.test",
        "http://127.0.0.1:80@evil.test",
        "file://",
        "http://evil.test#localhost",
    ],
)
async def test_s1_origins_that_only_look_local_are_refused(origin: str) -> None:
    answer = await Client(front(FakeGateway()), origin=origin).call(initialize())
    assert answer.status == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost", "https://LOCALHOST:8080", "http://[::1]:3000", "http://127.8.9.1"]
)
async def test_s1_local_origins_are_let_in_and_may_read_the_answer(origin: str) -> None:
    answer = await Client(front(FakeGateway()), origin=origin).call(initialize())
    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == origin
    assert answer.header("access-control-allow-credentials") is None
    assert "Mcp-Session-Id" in (answer.header("access-control-expose-headers") or "")


@pytest.mark.parametrize("host", ["x/../admin?", "[::1", "localhost:80@evil", "a b", "localhost:", ""])
async def test_s4_a_host_that_is_no_host_is_refused_even_where_any_host_goes(host: str) -> None:
    assert (await Client(front(FakeGateway()), host=host).call(initialize())).status == 403
    anywhere = Client(front(FakeGateway(**REMOTE)), host=host, authorization=f"Bearer {SECRET}")
    assert (await anywhere.call(initialize())).status == 403


LOOPBACK = ["localhost:8808", "LOCALHOST.", "127.0.0.1", "127.9.9.9:1", "[::1]:8808"]
SIMILAR = ["localhost.evil.test", "2130706433", "127.0.0.1.nip.io", "[::2]", "evil.test:localhost"]


@pytest.mark.parametrize("host", LOOPBACK + SIMILAR)
async def test_s1_every_spelling_of_loopback_is_let_in_and_nothing_that_looks_like_it(host: str) -> None:
    status = 200 if host in LOOPBACK else 403
    assert (await Client(front(FakeGateway()), host=host).call(initialize())).status == status


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("host", "localhost", 403), ("origin", "http://localhost", 403), ("content-type", "application/json", 400)],
)
async def test_s1_a_repeated_header_that_decides_is_refused(name: str, value: str, status: int) -> None:
    answer = await Client(front(FakeGateway())).call(initialize(), headers=[(name, value), (name, value)])
    assert answer.status == status


async def test_s1_a_request_without_host_is_refused() -> None:
    assert (await Client(front(FakeGateway())).call(initialize(), headers=[("host", "-")])).status == 403


async def test_s2_off_loopback_with_tokens_any_host_goes_unless_they_are_listed() -> None:
    unlisted = front(FakeGateway(**REMOTE))
    listed = front(FakeGateway(**REMOTE, allowed_hosts=["mcp.corp", "other.corp:444"]))
    for app, host, status in (
        (unlisted, "mcp.corp", 200),
        (listed, "mcp.corp:8443", 200),
        (listed, "other.corp:444", 200),
        (listed, "other.corp:445", 403),
        (listed, "evil.test", 403),
    ):
        assert (await Client(app, host=host).send("GET", "/health", headers=[bearer(SECRET)])).status == status


async def test_s2_off_loopback_without_tokens_only_named_hosts_go() -> None:
    open_to_all = front(FakeGateway(host="0.0.0.0", insecure=True))
    assert (await Client(open_to_all, host="evil.test").call(initialize())).status == 403
    assert (await Client(open_to_all, host="0.0.0.0:8808").call(initialize())).status == 403
    assert (await Client(open_to_all, host="localhost").call(initialize())).status == 200


async def test_a_listed_origin_is_let_in_at_its_port_only() -> None:
    app = front(FakeGateway(allowed_origins=["https://App.corp", "http://dev.corp:*"]))
    for origin, status in (
        ("https://app.corp", 200),
        ("https://app.corp:444", 403),
        ("http://dev.corp:3000", 200),
        ("http://dev.corp", 200),
    ):
        assert (await Client(app, origin=origin).call(initialize())).status == status, origin


async def test_s3_a_simple_cross_origin_post_runs_nothing() -> None:
    gateway = FakeGateway()
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
        "-",
    ):
        answer = await Client(front(gateway)).call(initialize(), headers=[("content-type", kind)])
        assert answer.status == 415
    assert not gateway.calls


async def test_a_preflight_is_answered_for_allowed_origins_only_and_needs_no_token() -> None:
    app = front(FakeGateway(**REMOTE, allowed_origins=["https://app.corp"]))
    asked = [("access-control-request-headers", "Content-Type, Mcp-Param-Region, X-Evil")]
    answer = await Client(app, origin="https://app.corp").send("OPTIONS", "/mcp", headers=asked)
    assert answer.status == 204
    assert answer.header("access-control-allow-origin") == "https://app.corp"
    assert answer.header("access-control-allow-headers") == "content-type, mcp-param-region"
    assert answer.header("access-control-allow-methods") == "DELETE, GET, OPTIONS, POST"
    assert (await Client(app, origin="https://evil.test").send("OPTIONS", "/mcp", headers=asked)).status == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "TRACE"])
async def test_other_methods_are_not_allowed(method: str) -> None:
    answer = await Client(front(FakeGateway())).send(method, "/mcp")
    assert answer.status == 405
    assert answer.header("allow") == "DELETE, GET, OPTIONS, POST"


@pytest.mark.parametrize(
    ("path", "status"), [("/mcp", 200), ("/alpha/mcp", 200), ("/nobody/mcp", 404), ("/groups/nobody/mcp", 404)]
)
async def test_an_endpoint_exists_only_for_a_server_or_group_that_does(path: str, status: int) -> None:
    assert (await Client(front(FakeGateway())).call(initialize(), path)).status == status


@pytest.mark.parametrize("path", ["/mcp", "/alpha/mcp", "/health", "/nowhere", "//mcp", "/unknown/mcp", "/%5Fhealthz"])
async def test_without_a_token_nothing_is_told(path: str) -> None:
    client = Client(front(FakeGateway(**REMOTE)))
    for headers in ([], [bearer("wrong")], [("authorization", f"Basic {SECRET}")], [bearer(SECRET[:-1])]):
        answer = await client.send("POST" if path.endswith("mcp") else "GET", path, headers=headers)
        assert answer.status == 401
        assert answer.header("www-authenticate") == "Bearer"
        assert SECRET.encode() not in answer.body


async def test_a_token_proves_who_is_asking() -> None:
    gateway = FakeGateway(**REMOTE)
    message, headers = modern()
    assert (await Client(front(gateway)).call(message, headers=[*headers, bearer("other-token")])).status == 200
    assert (
        await Client(front(gateway)).call(message, headers=[*headers, ("authorization", f"bearer  {SECRET}")])
    ).status == 200
    bob, alice = (call.session.principal for call in gateway.calls)
    assert (bob.name, alice.name) == ("bob", "alice")
    assert bob.key != alice.key
    assert SECRET not in repr(front(gateway))


async def test_the_probes_are_open_but_health_is_not() -> None:
    client = Client(front(FakeGateway(**REMOTE)))
    assert (await client.send("GET", "/_healthz")).status == 200
    assert (await client.send("GET", "/_readyz")).status == 200
    assert (await client.send("GET", "/health", headers=[bearer(SECRET)])).status == 200


async def test_a_reload_puts_new_tokens_in_force() -> None:
    gateway = FakeGateway(**REMOTE)
    app = front(gateway)
    gateway.settings = gateway.settings.model_copy(update={"tokens": FakeGateway(tokens=["fresh"]).settings.tokens})
    app.reload()
    assert (await Client(app).call(initialize(), headers=[bearer(SECRET)])).status == 401
    assert (await Client(app).call(initialize(), headers=[bearer("fresh")])).status == 200


async def test_tokens_of_one_name_are_one_principal_until_the_token_goes() -> None:
    both = [{"name": "alice", "token": "old"}, {"name": "alice", "token": "new"}, {"name": "bob", "token": "other"}]
    gateway = FakeGateway(host="0.0.0.0", tokens=both)
    app = front(gateway)
    client = Client(app)
    opened = await client.call(initialize(), headers=[bearer("old")])
    session = ("mcp-session-id", opened.header("mcp-session-id") or "")
    for token, status in (("old", 200), ("new", 200), ("other", 404)):
        assert (await client.call(request("ping"), headers=[bearer(token), session])).status == status
    gateway.settings = gateway.settings.model_copy(update={"tokens": gateway.settings.tokens[1:]})
    app.reload()
    assert (await client.call(request("ping"), headers=[bearer("old"), session])).status == 401
    assert (await client.call(request("ping"), headers=[bearer("new"), session])).status == 404


async def test_tokens_without_a_name_are_not_one_principal_when_their_places_change() -> None:
    first, second = (Tokens([("token-1", text)]).principal(f"Bearer {text}".encode()) for text in ("a", "b"))
    assert first != second


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        *(("accept", value, 406) for value in ("text/html", "application/json;q=0, text/event-stream; q=0.00")),
        *(("accept", value, 200) for value in ("*/*", "text/*, application/*;q=0.5", "-", "", " , ")),
        *(("accept", value, 200) for value in ("text/html, */*;q=0.1", "application/json, application/mcp+json")),
        ("accept", "text/event-stream,APPLICATION/JSON", 200),
        ("content-type", "Application/JSON; charset=utf-8", 200),
        ("content-encoding", "gzip", 415),
    ],
)
async def test_s6_media_types_and_encodings_are_those_of_the_protocol(name: str, value: str, status: int) -> None:
    assert (await Client(front(FakeGateway())).call(initialize(), headers=[(name, value)])).status == status


async def test_s6_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    gateway = FakeGateway(limits={"max_body": 1000})
    client = Client(front(gateway))
    exchange = client.open("POST", "/mcp", b"x" * 1001, headers=[("content-length", "1001")])
    answer = await exchange.done()
    assert answer.status == 413
    assert answer.header("connection") == "close"
    assert exchange.received == 0
    assert (await client.send("POST", "/mcp", headers=[("content-length", "9" * 5000)])).status == 413
    assert (await client.send("POST", "/mcp", headers=[("content-length", "-1")])).status == 400


async def test_s6_a_chunked_body_is_read_up_to_the_limit_only() -> None:
    client = Client(front(FakeGateway(limits={"max_body": 1000})))
    exchange = client.open("POST", "/mcp", [b"x" * 400] * 50)
    assert (await exchange.done()).status == 413
    assert exchange.received == 1200
    whole = json.dumps(initialize()).encode().ljust(1000)
    assert (await client.send("POST", "/mcp", [whole[:500], whole[500:]])).status == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_forgotten() -> None:
    gateway = FakeGateway()
    exchange = Client(front(gateway)).open("POST", "/mcp", b'{"jsonrpc"', unfinished=True)
    exchange.leave()
    assert (await exchange.done()).status == 0
    assert not gateway.calls


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 100_000, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"a","params":' + b'{"a":' * 50_000, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"n":NaN}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', -32700),
        (b"", -32700),
        (b"[]", -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'"ping"', -32600),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_s8_what_is_no_message_is_refused_as_such(body: bytes, code: int) -> None:
    gateway = FakeGateway()
    answer = await Client(front(gateway)).send("POST", "/mcp", body)
    assert (answer.status, answer.error) == (400, code)
    assert b"Traceback" not in answer.body
    assert not gateway.calls


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","naſe":"b","uRi":"c"}}'.encode(),
    ],
)
async def test_s9_ambiguous_members_are_refused(body: bytes) -> None:
    gateway = FakeGateway()
    answer = await Client(front(gateway)).send("POST", "/mcp", body)
    assert answer.status == 400
    assert answer.error in (-32600, -32602)
    assert not gateway.calls


async def test_a_defect_in_the_program_costs_one_error_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gateway = FakeGateway()
    gateway.has_scope = lambda scope: [][1]  # type: ignore[method-assign]  # a defect, as good as any
    answer = await Client(front(gateway)).call(initialize(), "/alpha/mcp")
    assert (answer.status, answer.error) == (500, -32603)
    assert b"IndexError" not in answer.body
    assert "request failed unexpectedly" in caplog.text


async def test_a_websocket_is_closed() -> None:
    sent: list[object] = []

    async def receive() -> dict[str, Payload]:
        return {}

    async def send(message: object) -> None:
        sent.append(message)

    await front(FakeGateway())({"type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_requests_without_a_session_but_to_open_one_are_refused() -> None:
    answer = await Client(front(FakeGateway())).call(request("tools/list"))
    assert (answer.status, answer.error) == (400, -32600)
