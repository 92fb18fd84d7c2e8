"""HTTP/1.1 and event streams on a socket, as far as MCP needs them; keeps bytes as they came. Knows no JSON-RPC."""

import re
from dataclasses import dataclass
from typing import Final

from tests.peers.wire import SocketWire

Headers = tuple[tuple[str, str], ...]
_BLANK: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LINES: Final = re.compile(rb"\r\n|\n|\r")


def header(headers: Headers, name: str) -> str | None:
    """The first header of that name."""
    return next((value for key, value in headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class HttpHead:
    """A request or status line, and its headers in order."""

    first: str
    headers: Headers

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return header(self.headers, name)


async def read_head(wire: SocketWire) -> HttpHead:
    """The next message's head.

    Raises:
        ConnectionError: there is none.
    """
    first, *lines = (await wire.until(b"\r\n\r\n"))[:-4].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return HttpHead(first, tuple((name, value.strip()) for name, _, value in pairs))


def compose(first: str, headers: Headers, body: bytes | None = None) -> bytes:
    """A message; with a body its length is added."""
    length = () if body is None else (("Content-Length", str(len(body))),)
    lines = [first, *(f"{name}: {value}" for name, value in (*headers, *length)), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Body:
    """A message body, piece by piece."""

    def __init__(self, wire: SocketWire, head: HttpHead, *, has_end: bool) -> None:
        self._wire = wire
        self._is_chunked = (head.get("transfer-encoding") or "").lower() == "chunked"
        length = head.get("content-length")
        self._left: int | None = int(length) if length else 0 if has_end and not self._is_chunked else None
        self.is_done = self._left == 0

    def __repr__(self) -> str:
        return f"<Body {'done' if self.is_done else 'open'}>"

    async def next(self) -> bytes:
        """The next piece; nothing at the end.

        Raises:
            ConnectionError: the peer left in the middle.
        """
        if self.is_done:
            return b""
        piece = await (self._chunk() if self._is_chunked else self._plain())
        self.is_done = not piece
        return piece

    async def _chunk(self) -> bytes:
        size = int((await self._wire.until(b"\r\n")).split(b";")[0], 16)
        return (await self._wire.exactly(size + 2))[:-2]

    async def _plain(self) -> bytes:
        if self._left is None:
            return await self._wire.some()
        piece, self._left = await self._wire.exactly(self._left), 0
        return piece

    async def all(self) -> bytes:
        """The rest."""
        pieces = []
        while piece := await self.next():
            pieces.append(piece)
            if self._left == 0:
                self.is_done = True
        return b"".join(pieces)


def event(data: bytes, *, name: str = "message", id_: str | None = None) -> bytes:
    """One event; text with line feeds becomes several data lines."""
    head = f"event: {name}\r\n".encode() + (f"id: {id_}\r\n".encode() if id_ is not None else b"")
    return head + b"".join(b"data: %b\r\n" % line for line in data.split(b"\n")) + b"\r\n"


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One event as it came. A comment or a bare `retry` has no data."""

    raw: bytes
    name: str = "message"
    data: bytes = b""
    id: str | None = None
    retry: str | None = None


def parse_event(raw: bytes) -> WireEvent:
    """An event from its lines; lines end at CR and LF only."""
    fields: dict[str, list[bytes]] = {}
    for line in _LINES.split(raw):
        name, _, value = line.partition(b":")
        if name:
            fields.setdefault(name.decode(errors="replace"), []).append(value.removeprefix(b" "))
    shown = {name: values[-1].decode(errors="replace") for name, values in fields.items() if name != "data"}
    data = b"\n".join(fields.get("data", ()))
    return WireEvent(raw, shown.get("event", "message"), data, shown.get("id"), shown.get("retry"))


class Events:
    """The events of a body, one after the other."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<Events {len(self._buffer)} bytes buffered, {self._body!r}>"

    async def next(self) -> WireEvent | None:
        """The next event, comments included; None at the orderly end.

        Raises:
            ConnectionError: the peer left in the middle of the body.
        """
        start = 0
        while (found := _BLANK.search(self._buffer, start)) is None:
            start = max(0, len(self._buffer) - 3)
            piece = await self._body.next()
            if not piece:
                return None
            self._buffer += piece
        raw = bytes(self._buffer[: found.end()])
        del self._buffer[: found.end()]
        return parse_event(raw)
