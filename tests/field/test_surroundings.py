"""What proxies, load balancers and OAuth clients around an endpoint ask for."""

import pytest

from tests.unit.fronts import wires
from tests.unit.fronts.fakes import Client, FakeGateway, front

pytestmark = pytest.mark.anyio

TOKENS = [{"name": "alice", "token": "token-of-alice"}]


@pytest.mark.parametrize("path", ["/_healthz", "/_readyz"])
@pytest.mark.parametrize("host", ["-", "mcp-backend", "10.1.2.3:8808", "evil.test", "not a host"])
async def test_probes_answer_whatever_the_host(path: str, host: str) -> None:
    client = Client(front(FakeGateway(tokens=TOKENS)))
    del client.headers["host"]
    assert (await client.send("GET", path, headers=[("host", host)])).status == 200
    assert (await client.send("GET", "/health", headers=[("host", host)])).status == 403
    foreign = [("host", host), ("origin", "http://evil.test")]
    assert (await client.send("GET", path, headers=foreign)).status == 403


async def test_probes_answer_http_1_0_without_a_host() -> None:
    async with wires.staged(front(FakeGateway())) as stage:
        for path in ("/_healthz", "/_readyz"):
            (answer,) = await stage.asks(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert answer.status == 200


OAUTH = [
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/mcp/.well-known/openid-configuration"),
    ("POST", "/register"),
    ("GET", "/authorize"),
    ("POST", "/token"),
]


@pytest.mark.parametrize(("method", "path"), OAUTH)
@pytest.mark.parametrize("base", ["", "/base"])
@pytest.mark.parametrize("tokens", [[], TOKENS], ids=["open", "tokens"])
async def test_where_there_is_no_oauth_its_paths_are_not_found(
    method: str, path: str, base: str, tokens: list[dict[str, str]]
) -> None:
    client = Client(front(FakeGateway(tokens=tokens, base_path=base)))
    for each in {path, base + path}:
        assert (await client.send(method, each)).status == 404


@pytest.mark.parametrize("path", ["/tokens", "/token/", "/register/mcp", "/well-known/x", "/"])
async def test_other_paths_still_need_a_token(path: str) -> None:
    assert (await Client(front(FakeGateway(tokens=TOKENS))).send("GET", path)).status == 401


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("path", ["/mcp", "/sse"])
async def test_a_stream_begins_at_once_with_a_byte_of_its_body(path: str, version: str) -> None:
    app = front(FakeGateway())
    session = await Client(app).session()
    lines = ("accept: text/event-stream", f"mcp-session-id: {session.id}")
    async with wires.wired(app) as (_, wire):
        await wire.send(wires.request(path, None, *lines, version=version))
        answer = await wire.head()
        assert answer.headers[b"content-type"] == b"text/event-stream"
        assert (b"transfer-encoding" in answer.headers) == (version == "1.1")
        first = await wire.chunk() if version == "1.1" else await wire.reader.readuntil(b"\n\n")
        assert first.startswith(b": keep-alive" if path == "/mcp" else b"event: endpoint")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_head_of_a_stream_does_not_wait_for_its_first_event(version: str) -> None:
    async def silent(served: wires.Served) -> None:
        await served.start(200, (b"content-type", b"text/event-stream"))
        await served.until_left()

    async with wires.wired(wires.Scripted(silent=silent)) as (_, wire):
        await wire.send(wires.request("/silent", version=version))
        assert (await wire.head()).status == 200
