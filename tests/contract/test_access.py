"""Who gets in over HTTP: bearer tokens, Host and Origin, before anything else is looked at."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import LATEST, OLDEST, standing
from tests.peers.clients import MODERN_VERSION, HttpClient, ModernClient
from tests.peers.clients import SseClient as LegacyClient
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

TOKENS = {"tokens": [{"name": "ann", "token": "first-secret"}, {"name": "bob", "token": "second-secret"}]}
WRONG = (None, "", "first-secre", "first-secret2", "FIRST-SECRET", "first-secret second-secret")


@shows("token")
@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", OLDEST)], ids=str)
async def test_nobody_gets_in_without_a_token(way: Way) -> None:
    async with standing(offerings(("web",)), manifold=TOKENS) as stand:
        for token in WRONG:
            async with stand.client(way, token=token, connect=False) as client:
                reply = await client.connect(way.version)
                assert (reply.status, reply.result) == (401, None), (token, reply)
        for token in ("first-secret", "second-secret"):
            async with stand.client(way, token=token) as client:
                assert (await client.call("web__echo", {"text": "in"})).text == "in"


@shows("token-bound")
async def test_a_session_belongs_to_the_token_that_opened_it() -> None:
    ping = '{"jsonrpc":"2.0","id":1,"method":"ping"}'
    async with standing(offerings(("web",)), manifold=TOKENS) as stand:
        origin = await stand.origin()
        async with stand.client(Way("http", LATEST), token="first-secret") as ann:
            async with HttpClient(f"{origin}/mcp", token="second-secret") as bob:
                bob.session, bob.version, bob.is_connected = ann.session, LATEST, True
                assert (await bob.post(ping)).status == 404
                assert (await bob.open_get_stream()).status == 404
                assert await bob.delete() == 404
            async with HttpClient(f"{origin}/web/mcp", token="first-secret") as elsewhere:
                elsewhere.session, elsewhere.version = ann.session, LATEST
                assert (await elsewhere.post(ping)).status == 404
            assert (await ann.post(ping)).status == 200
        async with (
            stand.client(Way("sse", OLDEST), token="first-secret") as ann,
            LegacyClient(f"{origin}/sse", token="second-secret") as bob,
        ):
            assert await bob.post(ping, endpoint=ann.endpoint) == 404


@shows("host")
async def test_a_foreign_host_or_origin_is_refused() -> None:
    settings = {"allowedHosts": ["mcp.example"], "allowedOrigins": ["https://app.example"]}
    async with standing(offerings(("web",)), manifold=settings) as stand:
        url = f"{await stand.origin()}/mcp"
        for headers, status in (
            ((("Host", "evil.example"),), 403),
            ((("Host", "127.0.0.1.evil.example"),), 403),
            ((("Origin", "https://evil.example"),), 403),
            ((("Origin", "null"),), 403),
            ((("Origin", "http://127.0.0.1.evil.example"),), 403),
            ((("Origin", "https://app.example.evil"),), 403),
            ((("Host", "mcp.example"),), 200),
            ((("Host", "localhost:1"),), 200),
            ((("Origin", "https://app.example"),), 200),
            ((("Origin", "http://localhost:3000"),), 200),
        ):
            for kind in (HttpClient, ModernClient):
                async with kind(url) as client:
                    client.override = {name.lower(): value for name, value in headers}
                    reply = await (client.connect() if kind is ModernClient else client.connect(LATEST))
                    assert reply.status == status, (headers, reply)
            async with HttpClient(url.replace("/mcp", "/sse")) as legacy:
                stream = await legacy.caller.send("GET", (("Accept", "text/event-stream"), *headers))
                assert stream.status == status, headers
