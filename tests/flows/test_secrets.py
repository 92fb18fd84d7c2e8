"""Secrets: no client's credential reaches a backend, and no configured one leaves by an error, a status or the log."""

import logging
import sys

import pytest

from tests.contract.offers import offerings
from tests.contract.stand import IN_PROCESS, LATEST, standing
from tests.peers.backend import Fault
from tests.peers.clients import MODERN_VERSION, HttpClient
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

CLIENTS_OWN = (
    ("Cookie", "session=canary-cookie"),
    ("X-Api-Key", "canary-key"),
    ("Proxy-Authorization", "Basic canary-proxy"),
    ("X-Forwarded-User", "canary-user"),
    ("X-Real-Ip", "canary-ip"),
    ("Traceparent", "canary-trace"),
)


@pytest.mark.parametrize("way", [Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)], ids=str)
async def test_s19_nothing_a_client_proves_itself_with_reaches_a_backend(way: Way) -> None:
    tokens = {"tokens": [{"name": "ann", "token": "canary-token"}]}
    own = {"headers": {"Authorization": "Bearer of-the-server", "X-Own": "kept"}}
    servers = dict.fromkeys(IN_PROCESS, own)
    async with standing(offerings(IN_PROCESS), manifold=tokens, **servers) as stand:
        async with stand.client(way, token="canary-token", headers=CLIENTS_OWN) as client:
            for kind in IN_PROCESS:
                assert (await client.call(f"{kind}__echo", {"text": "x"})).text == "x"
                await client.request("resources/read", {"uri": f"note://{kind}/1"})
        for kind in IN_PROCESS:
            assert stand[kind].exchanges
            for exchange in stand[kind].exchanges:
                assert "canary" not in repr(exchange.headers)
                assert b"canary" not in exchange.raw
                assert exchange.header("authorization") == "Bearer of-the-server"
                assert exchange.header("x-own") == "kept"


CANARIES = {
    "env": "canary-in-env",
    "header": "canary-in-header",
    "query": "canary-in-query",
    "args": "canary-in-args",
    "token": "canary-as-token",
    "argument": "canary-in-argument",
    "wrong": "canary-wrong-token",
}
DYING = "import os, sys; sys.exit(3)"
FAULTS = (
    Fault(500, b"", method="tools/call"),
    Fault(401, b"", method="tools/call"),
    Fault(200, b"<html>", (("Content-Type", "text/html"),), method="tools/call"),
    Fault(kind="reset", method="tools/call"),
    Fault(kind="cut", method="tools/call"),
    Fault(404, b"", method="tools/call"),
)


async def test_s21_no_secret_leaves_by_an_error_a_status_a_repr_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = {"tokens": [{"name": "ann", "token": CANARIES["token"]}], "startupTimeout": "1s"}
    headers = {"Authorization": f"Bearer {CANARIES['header']}"}
    own = {kind: {"headers": headers, "timeout": "400ms"} for kind in IN_PROCESS}
    env = {"env": {"API_KEY": CANARIES["env"]}}
    said: list[object] = []
    async with standing(offerings((*IN_PROCESS, "pipe")), manifold=tokens, pipe=env, **own) as stand:
        servers = stand.config["mcpServers"]
        for kind in IN_PROCESS:
            servers[kind]["url"] += f"?key={CANARIES['query']}"
        servers["missing"] = {"command": "no-such-command", "args": ["--key", CANARIES["args"]], **env}
        servers["dying"] = {"command": sys.executable, "args": ["-c", DYING, CANARIES["args"]], **env}
        servers["refused"] = {"url": f"http://127.0.0.1:9/mcp?key={CANARIES['query']}", "headers": headers}
        for token in (CANARIES["wrong"], None):
            async with HttpClient(f"{await stand.origin()}/mcp", token=token) as stranger:
                said.append((await stranger.connect(LATEST)).raw)
        for way in (Way("http", LATEST), Way("http", MODERN_VERSION), Way("sse", LATEST)):
            async with stand.client(way, token=CANARIES["token"]) as client:
                secret = {"text": CANARIES["argument"]}
                for kind in IN_PROCESS:
                    said.append((await client.call(f"{kind}__hang", secret)).raw)
                    for fault in FAULTS:
                        stand[kind].fail(fault)
                        said.append((await client.call(f"{kind}__error", secret)).raw)
                        stand[kind].heal()
                    await stand[kind].refuse()
                    said.append((await client.call(f"{kind}__error", secret)).raw)
                    await stand[kind].listen()
                await stand["pipe"].exit(9)
                said += [(await client.call(name, secret)).raw for name in ("pipe__error", "missing__x", "nothing")]
                said.append((await client.request("resources/read", {"uri": "nowhere:x"})).raw)
        said += [stand.manifold.status(), stand.manifold.health(), stand.manifold.servers_health()]
        said += [stand.manifold, stand.manifold.config, stand.manifold.asgi_app(), stand.manifold.problems()]
    log = "\n".join(_line(record) for record in caplog.records if record.name.startswith("mcp_manifold"))
    assert "refused" in log, "the log was kept"
    for what, canary in CANARIES.items():
        assert canary not in log, (what, [line for line in log.splitlines() if canary in line])
        leaks = [each for each in said if canary in repr(each)]
        assert not leaks, (what, leaks)


def _line(record: logging.LogRecord) -> str:
    formatter = logging.Formatter()
    return f"{formatter.format(record)} { ({key: value for key, value in vars(record).items() if key != 'args'})!r}"
