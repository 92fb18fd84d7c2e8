"""Streamable HTTP servers, any number in one process, each on its own port.

    python -m benchmarks.servers.http_server --ports 9100-9109 --tools 50 [--modern] [--stream]

Prints "ready" once all of them listen. Answers are JSON, or event streams with `--stream`. `initialize` returns a
session id, as in most servers, but nothing checks it. The protocol is minimal and expects well-formed HTTP.
"""

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterator
from typing import Any, Final

import httptools
import orjson
import uvloop

from benchmarks.servers.allocator import keep_large_blocks
from benchmarks.servers.answering import Answers

_NO_METHOD: Final = b'{"code":-32601,"message":"method not found"}'
_REFUSED: Final = b"HTTP/1.1 405 Method Not Allowed\r\nallow: POST, DELETE\r\ncontent-length: 0\r\n\r\n"
_TAKEN: Final = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class Server(asyncio.Protocol):
    """One connection to one of the servers."""

    def __init__(self, answers: Answers, sessions: Iterator[int], *, streams: bool) -> None:
        self._answers = answers
        self._sessions = sessions
        self._streams = streams
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._is_modern = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"mcp-protocol-version":
            self._is_modern = value == b"2026-07-28"

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        body, modern = b"".join(self._parts), self._is_modern
        self._parts, self._is_modern = [], False
        match self._parser.get_method():
            case b"POST":
                self._answer(orjson.loads(body), modern)
            case b"GET":
                self._transport.write(_REFUSED)
            case _:
                self._transport.write(_TAKEN.replace(b"202 Accepted", b"200 OK"))

    def _answer(self, message: dict[str, Any], modern: bool) -> None:
        if "id" not in message or "method" not in message:
            self._transport.write(_TAKEN)
            return
        result = self._answers.result(message, modern=modern)
        key, value = (b"result", result) if result is not None else (b"error", _NO_METHOD)
        head = b""
        if message["method"] == "initialize":
            head = b"mcp-session-id: reference-%d\r\n" % next(self._sessions)
        id_ = orjson.dumps(message["id"])
        body = b"".join((b'{"jsonrpc":"2.0","id":', id_, b',"', key, b'":', value, b"}"))
        if self._streams:
            self._stream(head, body)
        else:
            status = b"404 Not Found" if result is None and modern else b"200 OK"
            told = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
            self._transport.writelines((told % (status, head, len(body)), body))

    def _stream(self, head: bytes, body: bytes) -> None:
        told = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%btransfer-encoding: chunked\r\n\r\n%x\r\n"
        event = (b"event: message\ndata: ", body, b"\n\n")
        self._transport.writelines((told % (head, sum(map(len, event))), *event, b"\r\n0\r\n\r\n"))


async def _serve(ports: range, answers: Answers, *, streams: bool) -> None:
    sessions = itertools.count(1)
    for port in ports:
        make = asyncio.get_running_loop().create_server
        await make(lambda: Server(answers, sessions, streams=streams), "127.0.0.1", port, backlog=1024)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", required=True, help="first-last")
    parser.add_argument("--tools", type=int, default=5)
    parser.add_argument("--modern", action="store_true", help="speak 2026-07-28 as well")
    parser.add_argument("--stream", action="store_true", help="answer with event streams")
    given = parser.parse_args()
    first, _, last = given.ports.partition("-")
    keep_large_blocks()
    answers = Answers(given.tools, speaks_modern=given.modern)
    uvloop.run(_serve(range(int(first), int(last or first) + 1), answers, streams=given.stream))


if __name__ == "__main__":
    main()
