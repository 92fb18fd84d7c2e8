"""The lower bound for HTTP: uvicorn with uvloop and httptools; parse, rename, forward over warm connections.

    python -m benchmarks.limits.asgi_hop --port 9000 --server a=http://127.0.0.1:9100/mcp ...
    python -m benchmarks.limits.asgi_hop --port 9000 --list 500      a constant list with this many tools

It has no sessions, checks, limits or error handling.
"""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
import uvicorn

from benchmarks.limits.upstream import Pool
from benchmarks.servers.answering import Answers

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_JSON: Final = (b"content-type", b"application/json")


class Hop:
    """The ASGI application that forwards messages."""

    def __init__(self, servers: dict[str, Pool]) -> None:
        self._servers = servers
        self._first = next(iter(servers.values()))

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = await _whole(receive)
        if scope["method"] != "POST":
            await _sent(send, 405, b"")
            return
        message = orjson.loads(body)
        pool = self._first
        if message.get("method") == "tools/call":
            name, _, tool = message["params"]["name"].partition("__")
            pool = self._servers[name]
            message["params"]["name"] = tool
            body = orjson.dumps(message)
        head, reply = await pool.post(body)
        if reply:
            reply = orjson.dumps(orjson.loads(reply))
        await _sent(send, int(head[9:12]), reply)


class StaticList:
    """The ASGI application that answers every list with the same bytes."""

    def __init__(self, count: int) -> None:
        self._answers = Answers(count)
        self._listed = self._answers.result({"method": "tools/list"}) or b""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        message = orjson.loads(await _whole(receive) or b"{}")
        if "id" not in message:
            await _sent(send, 202, b"")
            return
        result = self._listed if message["method"] == "tools/list" else self._answers.result(message) or b"{}"
        await _sent(send, 200, b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (orjson.dumps(message["id"]), result))


async def _whole(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _sent(send: Send, status: int, body: bytes) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--list", type=int, metavar="TOOLS")
    given = parser.parse_args()
    pools = {name: Pool(url) for name, _, url in (server.partition("=") for server in given.server)}
    uvicorn.run(
        StaticList(given.list) if given.list else Hop(pools),
        host="127.0.0.1",
        port=given.port,
        loop="uvloop",
        http="httptools",
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
