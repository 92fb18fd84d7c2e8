"""Guards of admission and sessions that no request alone shows: remembered heads, ended sessions, equal time."""

import asyncio
import hmac
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from mcp_manifold.clock import LoopClock
from mcp_manifold.fronts.http.admission import AdmissionDecision
from mcp_manifold.fronts.http.guard import HeaderCheck, Tokens
from mcp_manifold.fronts.http.reply import HttpReply
from mcp_manifold.fronts.http_errors import Refused
from mcp_manifold.fronts.sessions import ActiveRequest, Sessions
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.http1.head import Head, Line
from mcp_manifold.model.call import Call
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import Payload
from tests.fakes.clock import settled
from tests.unit.fronts import wires
from tests.unit.fronts.fakes import (
    META,
    Client,
    FakeGateway,
    encoded,
    front,
    initialize,
    modern,
    note,
    prepared,
    request,
)

pytestmark = pytest.mark.anyio

TOKENS = [{"name": "alice", "token": "first-token"}, {"name": "bob", "token": "second-token"}]


class Written:
    """An HttpWriter that keeps the statuses of what it is given."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []

    def respond(self, status: int, body: bytes, lines: Sequence[Line] = ()) -> None:
        self.statuses.append(status)
        self.bodies.append(body)

    def respond_pieces(
        self, pieces: Sequence[bytes | memoryview], lines: Sequence[Line] = (), *, is_shared: bool = False
    ) -> None:
        self.respond(200, b"".join(pieces), lines)

    def upgrade_to_stream(self) -> Any:
        raise AssertionError("nothing streams here")

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("nothing streams here")

    def drop(self) -> None:
        raise AssertionError("nothing is dropped here")


def head(client: Client, **headers: str) -> Head:
    """The head of a POST, which a connection keeps for requests that repeat it."""
    base = {**client.headers, "content-type": "application/json"}
    base |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Head(
        b"POST", b"/mcp", [(name.encode(), value.encode()) for name, value in base.items()], "1.1", keeps_alive=True
    )


def taken(client: Client, kept: Head, message: Any) -> int:
    """The status of a request with a head that may have been decided on before."""
    writer = Written()
    client.app.take(kept, encoded(message), writer)
    return writer.statuses[0]


async def test_a_remembered_head_is_decided_again_once_its_session_has_ended() -> None:
    gateway, client = prepared()
    session = await client.session()
    kept, message = head(client, mcp_session_id=session.id), note("notifications/roots/list_changed")
    assert taken(client, kept, message) == 202
    await session.delete()
    heard = len(gateway.notes)
    assert taken(client, kept, message) == 404
    assert len(gateway.notes) == heard, "an ended session acts on nothing"


async def test_a_remembered_head_is_decided_again_once_the_settings_change() -> None:
    gateway = FakeGateway(tokens=TOKENS)
    gateway.at_once["tools/call"] = Payload(b'{"content":[]}')
    client = Client(front(gateway))
    message, lines = modern()
    headers = {name.replace("-", "_"): value for name, value in lines}
    kept = head(client, authorization="Bearer first-token", **headers)
    assert taken(client, kept, message) == 200
    gateway.settings = FakeGateway(tokens=TOKENS[1:]).settings
    client.app.reload()
    assert taken(client, kept, message) == 401


async def test_a_remembered_client_is_the_one_of_the_body_that_describes_it() -> None:
    gateway, client = prepared()
    gateway.at_once["tools/call"] = Payload(b'{"content":[]}')
    message, lines = modern()
    kept = head(client, **{name.replace("-", "_"): value for name, value in lines})
    assert taken(client, kept, message) == 200
    able = {**META, "io.modelcontextprotocol/clientCapabilities": {"sampling": {}}}
    other = request("tools/call", 2, name="echo", arguments={}, _meta=able)
    assert taken(client, kept, other) == 200
    assert [bytes(call.session.capabilities) for call in gateway.calls] == [b"{}", b'{"sampling": {}}']
    assert taken(client, kept, request("tools/call", 3, name="other", arguments={}, _meta=able)) == 400
    assert taken(client, kept, request("prompts/get", 4, name="echo", _meta=able)) == 400
    assert len(gateway.calls) == 2


@pytest.mark.parametrize("member", ["_meta", "name"])
async def test_a_client_that_describes_itself_at_length_is_checked_each_time_and_not_remembered(member: str) -> None:
    gateway, client = prepared()
    gateway.at_once["tools/call"] = Payload(b'{"content":[]}')
    message, lines = modern(name="x" * 9000 if member == "name" else "echo")
    kept = head(client, **{name.replace("-", "_"): value for name, value in lines})
    large = {**META, "io.modelcontextprotocol/clientInfo": {"name": "x" * 9000, "version": "1"}}
    for meta in (large, META, large) if member == "_meta" else (META, META):
        message["params"]["_meta"] = meta
        assert taken(client, kept, message) == 200
        assert isinstance(kept.decision, AdmissionDecision)
        assert (kept.decision.context is None) == (member == "name" or meta is large)


def sealed(head: Head) -> list[Refused]:
    """The refusals of a remembered decision."""
    decision = head.decision
    assert isinstance(decision, AdmissionDecision)
    return [refused for refused in (decision.refusal, decision.session_refusal) if refused is not None]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"authorization": "Bearer wrong"}, 401), ({"mcp_session_id": "nobody"}, 404), ({}, 400)],
    ids=["of the request", "of the session", "no session"],
)
async def test_a_remembered_refusal_keeps_nothing_of_the_requests_it_refused(
    headers: dict[str, str], status: int
) -> None:
    client = Client(front(FakeGateway(tokens=TOKENS)))
    kept = head(client, **{"authorization": "Bearer first-token", **headers})
    for _ in range(2):
        try:
            raise KeyError
        except KeyError:  # the parser's exceptions, too, hold the input they were raised for
            assert taken(client, kept, request("ping")) == status
        assert [(each.__traceback__, each.__context__, each.__cause__) for each in sealed(kept)] == [(None, None, None)]


READABLE: dict[str, tuple[int, str, Any, dict[str, str]]] = {
    "an answer": (200, "POST", initialize(), {}),
    "invalid JSON": (400, "POST", b"{", {}),
    "no token": (401, "POST", initialize(), {"authorization": "-"}),
    "no session": (404, "POST", request("ping"), {"mcp-session-id": "nobody"}),
    "no stream": (405, "GET", b"", {}),
    "another method": (405, "PUT", b"", {}),
    "a large body": (413, "POST", b"x" * 2000, {}),
    "another media type": (415, "POST", initialize(), {"content-type": "text/plain"}),
    "a page": (200, "GET", b"", {"path": "/_healthz"}),
    "a page without a token": (401, "GET", b"", {"path": "/health", "authorization": "-"}),
}


@pytest.mark.parametrize("is_mounted", [True, False], ids=["asgi", "connection"])
@pytest.mark.parametrize("case", READABLE)
async def test_a_page_of_an_allowed_origin_can_read_every_answer_and_refusal(case: str, is_mounted: bool) -> None:
    status, method, message, lines = READABLE[case]
    base = {"content-type": "application/json", "accept": "*/*", "authorization": "Bearer first-token"}
    headers = {**base, "origin": "http://localhost:3000", **lines}
    path = headers.pop("path", "/mcp")
    app = front(FakeGateway(tokens=TOKENS, limits={"max_body": 1000}))
    if is_mounted:
        found = await Client(app).send(method, path, encoded(message), headers=list(headers.items()))
        got, named = found.status, {name.lower(): value for name, value in found.headers}
    else:
        fields = [f"{name}: {value}" for name, value in headers.items() if value != "-"]
        async with wires.staged(app) as stage:
            (answer,) = await stage.asks(
                wires.request(path, encoded(message) if method == "POST" else None, *fields, method=method)
            )
        got, named = answer.status, {name.decode(): value.decode() for name, value in answer.headers.items()}
    assert (got, named.get("access-control-allow-origin"), named.get("vary")) == (
        status, "http://localhost:3000", "Origin"
    )  # fmt: skip


@pytest.mark.parametrize(
    "twice",
    [("mcp-method", "tools/call", "tools/call"), ("mcp-name", "echo", "echo"), ("mcp-name", "other", "echo")],
    ids=str,
)
@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_repeated_routing_headers_are_a_header_mismatch(twice: tuple[str, str, str], era: str) -> None:
    gateway, client = prepared()
    name, *values = twice
    message, lines = modern()
    if era == "handshake":
        lines = [("mcp-method", "tools/call"), *(await client.session()).headers, ("mcp-name", "echo")]
        message = request("tools/call", 7, name="echo", arguments={})
    before = len(gateway.calls)
    lines = [*(line for line in lines if line[0] != name), *((name, value) for value in values)]
    answer = await client.call(message, headers=lines)
    assert (answer.status, answer.error, len(gateway.calls)) == (400, -32020, before)


@pytest.mark.parametrize(("ends", "status"), [("session", 404), ("token", 401), ("scope", 404)])
@pytest.mark.parametrize("transport", ["mcp", "sse"])
async def test_what_ends_while_a_body_arrives_is_not_served(ends: str, status: int, transport: str) -> None:
    gateway = FakeGateway(tokens=TOKENS)
    client = Client(front(gateway), authorization="Bearer first-token")
    path, query = "/alpha/mcp", b""
    async with AsyncExitStack() as stack:
        if transport == "mcp":
            headers = (await client.session(path)).headers
        else:
            stream = await stack.enter_async_context(client.open("GET", "/alpha/sse"))
            opened = await stream.until(lambda answer: b"\n\n" in answer.body)
            path, _, sent = opened.body.split(b"data: ")[1].decode().strip().partition("?")
            headers, query = [], sent.encode()
        before = len(gateway.calls)
        slow = client.open("POST", path, headers=headers, query=query, unfinished=True)
        await stack.enter_async_context(slow)
        await settled()
        if ends == "session" and transport == "sse":
            stream.leave()
            await stream.done()
        elif ends == "session":
            assert (await client.send("DELETE", path, headers=headers)).status == 204
        elif ends == "token":
            gateway.settings = FakeGateway(tokens=TOKENS[1:]).settings
            client.app.reload()
        else:
            gateway.scopes.discard("server:alpha")
            client.app.reload()
        slow.finish(encoded(request("ping", 7)))
        answer = await slow.done()
    assert (answer.status, len(gateway.calls)) == (status, before)


@pytest.mark.parametrize(
    ("version", "status"), [("2025-11-25", 400), ("2026-07-28", 405), (None, 405)], ids=["handshake", "modern", "none"]
)
async def test_a_get_without_a_session_is_refused_as_its_era_expects(version: str | None, status: int) -> None:
    _, client = prepared()
    headers = [] if version is None else [("mcp-protocol-version", version)]
    assert (await client.send("GET", "/mcp", headers=headers)).status == status


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_session_is_of_no_use_in_another_era(method: str) -> None:
    _, client = prepared()
    session = await client.session()
    answer = await client.send(method, "/mcp", headers=[*session.headers, ("mcp-protocol-version", "2026-07-28")])
    assert answer.status == 400
    assert "unsupported protocol version" in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("line", "status"),
    [(("mcp-method", "tools/list"), 400), (("mcp-name", "other"), 400), (("mcp-name", "echo"), 200)],
)
async def test_each_mirror_header_of_a_handshake_request_is_checked(line: tuple[str, str], status: int) -> None:
    _, client = prepared()
    session = await client.session()
    answer = await client.call(request("tools/call", name="echo"), headers=[*session.headers, line])
    assert answer.status == status


class Waiting(ActiveRequest):
    """A request in flight that nobody answers."""

    def cancel(self) -> None: ...

    def end(self) -> None: ...


async def test_an_ended_session_takes_no_call_even_where_it_was_found_before() -> None:
    gateway = FakeGateway()
    sessions = Sessions(gateway, Tally(budget=gateway.budget), LoopClock())
    opened = sessions.create("mcp", ANONYMOUS, "")
    opened.register(Payload(b"1"), Waiting(), limit=8)
    opened.complete(b"1")
    sessions.end(opened)
    with pytest.raises(Refused, match="Session not found"):
        opened.register(Payload(b"2"), Waiting(), limit=8)


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    tokens = Tokens([(each["name"], each["token"]) for each in TOKENS])
    assert tokens.principal(b"Bearer first-token").name == "alice"
    assert len(compared) == 2, "also those after the one that matches"


def test_a_principal_is_known_as_long_as_its_token_is_configured() -> None:
    both, alone, none = (Tokens([(each["name"], each["token"]) for each in TOKENS[:count]]) for count in (2, 1, 0))
    alice, bob = (both.principal(f"Bearer {each['token']}".encode()) for each in TOKENS)
    known = [[tokens.knows(each) for each in (alice, bob, ANONYMOUS)] for tokens in (both, alone, none)]
    assert known == [[True, True, False], [True, False, False], [False, False, True]]


def test_a_token_is_found_in_a_header_of_up_to_8192_bytes() -> None:
    longest = "x" * (8192 - len("Bearer "))
    tokens = Tokens([("alice", longest), ("bob", f"{longest}x")])
    assert tokens.principal(f"Bearer {longest}".encode()).name == "alice"
    with pytest.raises(Refused, match="Unauthorized"):
        tokens.principal(f"Bearer {longest}x".encode())


@pytest.mark.parametrize(("length", "checks"), [(512, 1), (513, 2)])
def test_a_header_check_remembers_values_of_bounded_length(length: int, checks: int) -> None:
    checked: list[str] = []

    def check(value: str) -> bool:
        checked.append(value)
        return True

    remembering = HeaderCheck(check)
    assert remembering(b"x" * length)
    assert remembering(b"x" * length)
    assert len(checked) == checks


async def test_a_result_that_arrives_after_the_cancellation_is_not_answered_as_one() -> None:
    begun = asyncio.Event()

    async def stubborn(call: Call) -> Payload:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Payload(b'{"content":[]}')
        raise AssertionError("cancelled")

    _, client = prepared(tools_call=stubborn)
    session, writer = await client.session(), Written()
    reply = client.app.take(
        head(client, mcp_session_id=session.id), encoded(request("tools/call", 7, name="x")), writer
    )
    assert isinstance(reply, HttpReply)
    await begun.wait()
    reply.cancel()
    await settled()
    assert b'"error"' in writer.bodies[0]
    assert b'"result"' not in writer.bodies[0]
