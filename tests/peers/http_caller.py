"""HTTP requests over raw connections that are kept and used again. Knows no JSON-RPC; hides no byte of a response."""

from types import TracebackType
from urllib.parse import urlsplit

from tests.peers.http_wire import Body, Events, Headers, HttpHead, WireEvent, compose, header, read_head
from tests.peers.wire import SocketWire, connect


class Response:
    """A response whose head has arrived; the body is read on demand. Leave it with `async with`."""

    def __init__(self, caller: "HttpCaller", wire: SocketWire, head: HttpHead) -> None:
        self._caller = caller
        self.wire = wire
        self.head = head
        self.status = int(head.first.split(" ")[1])
        has_none = self.status in (202, 204, 304) and head.get("content-length") is None
        self.body = Body(wire, head, has_end=has_none)
        self.events = Events(self.body)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body!r}>"

    @property
    def headers(self) -> Headers:
        """All headers in order."""
        return self.head.headers

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return header(self.headers, name)

    @property
    def is_stream(self) -> bool:
        """Whether the body is an event stream."""
        return (self.get("content-type") or "").startswith("text/event-stream")

    async def next_event(self) -> WireEvent | None:
        """The next event that has data."""
        while (event := await self.events.next()) is not None and not event.data:
            pass
        return event

    async def __aenter__(self) -> "Response":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._caller.settle(self)


class HttpCaller:
    """A client's connections to one origin."""

    def __init__(self, url: str, *, token: str | None, headers: Headers = ()) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 80
        self.authority = parts.netloc
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.headers = headers + ((("Authorization", f"Bearer {token}"),) if token is not None else ())
        self.opened = 0
        self._idle: list[SocketWire] = []
        self._wires: set[SocketWire] = set()

    def __repr__(self) -> str:
        return f"<HttpCaller {self.authority} {len(self._wires)} connections, {len(self._idle)} idle>"

    async def send(
        self, method: str, headers: Headers = (), body: bytes | None = None, *, target: str | None = None
    ) -> Response:
        """Send a request and wait for the response's head; `Host` is added unless given.

        Raises:
            ConnectionError: no connection, or it ended first.
        """
        wire = await self._wire()
        host = () if header(headers, "host") is not None else (("Host", self.authority),)
        try:
            await wire.write(
                compose(f"{method} {target or self.target} HTTP/1.1", (*host, *self.headers, *headers), body)
            )
            return Response(self, wire, await read_head(wire))
        except BaseException:
            await self._drop(wire)
            raise

    async def _wire(self) -> SocketWire:
        while self._idle:
            wire = self._idle.pop()
            if not wire.ended.is_set():
                return wire
            await self._drop(wire)
        self.opened += 1
        wire = await connect(self.host, self.port)
        self._wires.add(wire)
        return wire

    async def settle(self, response: Response) -> None:
        """Keep the connection if the response was read to its end, else drop it."""
        if response.body.is_done and (response.get("connection") or "").lower() != "close":
            self._idle.append(response.wire)
        else:
            await self._drop(response.wire)

    async def _drop(self, wire: SocketWire) -> None:
        self._wires.discard(wire)
        wire.close()

    async def close(self) -> None:
        """Close every connection."""
        wires, self._wires = list(self._wires), set()
        self._idle.clear()
        for wire in wires:
            wire.close()
        for wire in wires:
            await wire.lost.wait()
