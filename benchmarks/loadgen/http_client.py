"""A Streamable HTTP client: a session, if its revision has one, and one connection per request in flight."""

import asyncio
import json
from urllib.parse import urlsplit

from benchmarks.loadgen.connection import Connection, Reply, connect
from benchmarks.loadgen.job import MODERN
from benchmarks.loadgen.messages import INITIALIZED, own_message
from benchmarks.loadgen.worker import Load, Worker


class HttpClient:
    """One client. `open` creates its session, and its `workers` send the requests."""

    def __init__(self, load: Load, number: int) -> None:
        job = load.job
        parts = urlsplit(job.url)
        self.load = load
        self.workers: list[Worker] = []
        self._number = number
        self._host, self._port = parts.hostname or "", parts.port or 80
        own = "".join(f"{key}: {value}\r\n" for key, value in job.headers.items())
        common = f"{parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{own}"
        accept = "application/json, text/event-stream"
        self._post = f"POST {common}Content-Type: application/json\r\nAccept: {accept}\r\n".encode()
        self._delete = f"DELETE {common}".encode()
        self._get = f"GET {common}Accept: text/event-stream\r\n".encode()
        self._session = b""
        self._streams: list[Connection] = []

    async def open(self) -> None:
        """Connect, and initialize a session if the revision has one. Raises RuntimeError: the server refused it."""
        first = await self.connect()
        if not self.load.job.is_modern:
            await self._shake_hands(first)
        if self.load.job.holds_stream:
            standing = await self.connect()
            standing.send(self._get + self._session + b"\r\n", lambda _: None)
            self._streams.append(standing)
        lanes = [first, *[await self.connect() for _ in range(self.load.job.in_flight - 1)]]
        numbers = range(self._number * len(lanes), (self._number + 1) * len(lanes))
        pairs = zip(lanes, numbers, strict=True)
        self.workers = [Worker(self.load, _HttpLane(self, lane), number) for lane, number in pairs]

    async def close(self) -> None:
        """End the session, if there is one."""
        if self._session:
            connection = await self.connect()
            await self._replied(connection, self._delete + self._session + b"\r\n")
            connection.close()

    async def connect(self) -> Connection:
        """A connection to the endpoint."""
        return await connect(self._host, self._port)

    def request(self, body: bytes, method: bytes = b"", tool: str = "") -> bytes:
        """A POST, head and body."""
        head = self._session
        if self.load.job.is_modern:
            head = b"mcp-protocol-version: %b\r\nmcp-method: %b\r\n" % (MODERN.encode(), method)
            if tool:
                head += b"mcp-name: %b\r\n" % tool.encode()
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._post, head, len(body), body)

    async def _shake_hands(self, connection: Connection) -> None:
        id_ = next(self.load.ids)
        reply = await self._replied(connection, self.request(self.load.messages.initialize(id_)))
        body = own_message(reply.body, id_) if reply.is_stream else reply.body
        if reply.status != 200 or b'"result"' not in body:
            raise RuntimeError(f"initialize: HTTP {reply.status} {reply.body[:300]!r}")
        version = json.loads(body)["result"]["protocolVersion"]
        session = f"Mcp-Session-Id: {reply.session}\r\n" if reply.session else ""
        self._session = f"{session}MCP-Protocol-Version: {version}\r\n".encode()
        reply = await self._replied(connection, self.request(INITIALIZED))
        if reply.status not in (200, 202, 204):
            raise RuntimeError(f"initialized: HTTP {reply.status}")

    async def _replied(self, connection: Connection, request: bytes) -> Reply:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        connection.send(request, answer.set_result)
        return await asyncio.wait_for(answer, self.load.job.timeout)


class _HttpLane:
    """One connection of a client; reopened when the server closed it."""

    def __init__(self, client: HttpClient, connection: Connection) -> None:
        self._client = client
        self._connection = connection
        self._again: asyncio.Task[None] | None = None

    def emit(self, worker: Worker, body: bytes, tool: str) -> None:
        data = self._client.request(body, b"tools/call" if tool else b"tools/list", tool)
        if self._connection.is_open:
            self._connection.send(data, lambda reply: self._replied(worker, reply))
        else:
            self._again = asyncio.ensure_future(self._reconnect(worker, data))

    async def _reconnect(self, worker: Worker, data: bytes) -> None:
        try:
            self._connection = await self._client.connect()
        except OSError as exc:
            worker.answered(b"", f"no connection: {exc}")
            return
        self._connection.send(data, lambda reply: self._replied(worker, reply))

    def _replied(self, worker: Worker, reply: Reply) -> None:
        if reply.status != 200:
            worker.answered(reply.body, f"HTTP {reply.status}")
        else:
            worker.answered(own_message(reply.body, worker.id) if reply.is_stream else reply.body)
