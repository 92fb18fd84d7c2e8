"""One HTTP/1.1 connection, idle or busy with one Exchange. Does not choose connections, nor open or keep them.

A response is parsed first and delivered after, per piece of input: no receiver ever runs inside the parser, and the
connection is back with its pool before the receiver is told that the response has ended (what it sends then goes out
on the same connection). Nothing that could make two sides disagree on where a response ends is repaired: the
connection is closed instead.
"""

import asyncio
import zlib
from typing import Protocol

import httptools

from mcp_manifold.backends.http.exchange import Exchange, FailureKind, Headers
from mcp_manifold.backends.http.inflate import Inflater, UnknownEncoding, inflater
from mcp_manifold.http1.known_heads import KnownHeads

_BULKY = 65536  # a body beyond this is written by itself: copying it behind its head would cost more than a write


class Keeper(Protocol):
    """The pool, as a connection sees it."""

    where: str
    max_body: int
    max_head: int

    def opened(self, connection: "Connection") -> None:
        """It exists: it counts."""

    def release(self, connection: "Connection") -> None:
        """It is free for the next request."""

    def forget(self, connection: "Connection") -> None:
        """It is closing: no request may go to it."""

    def lost(self, connection: "Connection") -> None:
        """It is gone: another one may be opened in its place."""


class _Broken(Exception):
    """The peer does not speak the protocol, in a way the parser itself accepts."""


class Connection(asyncio.Protocol):
    """One connection: idle, or busy with one exchange. Also the parser's callbacks (`on_...`)."""

    __slots__ = (
        "_announced",
        "_bulky",
        "_complete",
        "_exchange",
        "_fields",
        "_has_begun",
        "_inflater",
        "_known",
        "_may_be_coded",
        "_parser",
        "_pieces",
        "_pool",
        "_rest",
        "_reusable",
        "_room",
        "_started",
        "_status",
        "_transport",
        "idle_since",
        "is_closed",
    )
    _transport: asyncio.Transport

    def __init__(self, pool: Keeper) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._pieces: list[bytes] = []
        self._inflater: Inflater | None = None
        self._bulky = self._reusable = False
        self._known: KnownHeads[Headers] = KnownHeads(1)
        self._rest = 0
        """Bytes of the body that come past the parser."""
        self._started = b""
        """The piece of input in which the response that is coming in began."""
        self.idle_since = 0.0
        self.is_closed = False
        self._expect_head()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "busy" if self._exchange else "idle"
        return f"<Connection {self._pool.where} {state}>"

    def _expect_head(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._status = 0  # of the final response, once its head is complete
        self._announced = self._complete = self._may_be_coded = self._has_begun = False
        self._room = self._pool.max_head  # bytes that may still come before they amount to a head or a piece of body

    def begin(self, exchange: Exchange, head: bytes, extra: bytes, body: bytes) -> None:
        """Write the request and wait for its response."""
        self._exchange = exchange
        exchange.owner = self
        exchange.sent = True
        size = len(body)
        if size > _BULKY:
            self._bulky = True
            self._transport.write(b"%b%bcontent-length: %d\r\n\r\n" % (head, extra, size))
            self._transport.write(body)
        elif body or not head.startswith(b"GET "):
            self._transport.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (head, extra, size, body))
        else:
            self._transport.write(b"%b%b\r\n" % (head, extra))

    def can_take(self, oldest: float) -> bool:
        """Whether it is still good for a request: idle since no earlier than `oldest`, and not closing."""
        return self.idle_since >= oldest and not self._transport.is_closing()

    def give_up(self, exchange: Exchange) -> None:
        """A response nobody wants would have to be read to its end: closing is cheaper."""
        if exchange is self._exchange:
            self.close()

    def close(self) -> None:
        """Drop the connection now; its exchange, if any, is forgotten."""
        if not self.is_closed:
            self.is_closed = True
            self._exchange = None
            self._pool.forget(self)
            self._transport.abort()

    def fail(self, kind: FailureKind, reason: str) -> None:
        """Close, and tell the receiver why."""
        exchange = self._exchange
        self.close()
        if exchange is not None:
            exchange.fail(kind, f"{self._pool.where}: {reason}")

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport is a Transport
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # nothing was asked: it could be taken for the next response
            self.close()
            return
        if self._rest:
            self._take(exchange, data)
            return
        if not self._has_begun:
            known = self._known.find(data)
            if known is not None:
                self._recognised(exchange, *known)
                return
            self._started = data
        try:
            if len(data) <= self._room:
                self._room -= len(data)
                self._parser.feed_data(data)
            else:
                self._feed_beyond_room(data)
            self._deliver(exchange)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Broken) as exc:
            reason = "the response is not valid HTTP" if not isinstance(exc, _Broken) else str(exc)
            self.fail("protocol", reason)

    def _recognised(self, exchange: Exchange, headers: Headers, body: bytes) -> None:
        """A whole response, with the head of the one before it."""
        self._reusable = True
        exchange.receiver.responded(200, headers)
        if body:
            self._accept(exchange, body)
        if not exchange.done:
            self._end(exchange)

    def _take(self, exchange: Exchange, data: bytes) -> None:
        """More of a body whose length is known, past the parser, which would copy it."""
        self._rest -= len(data)
        if self._rest < 0:
            self.fail("protocol", "the response is longer than it says")
            return
        self._accept(exchange, data)
        if not self._rest and not exchange.done:
            self._end(exchange)

    def eof_received(self) -> None:
        if self._exchange is None:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del self._parser  # the two refer to each other
        self._pool.lost(self)
        exchange = self._exchange
        if exchange is None:
            self.is_closed = True
        elif exc is None and self._ends_with_connection():
            self._end_or_fail(exchange)
        else:
            self.fail("reset", "the connection was lost before the response was complete")

    # --- the parser's calls ---

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Broken
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # trailers are ignored
            self._fields.append((name, value))
            if 15 < len(name) < 18:  # content-encoding or transfer-encoding: cheaper to suspect than to look up
                self._may_be_coded = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._status = status
            self._reusable = self._parser.should_keep_alive()
        elif status < 100 or status == 101:
            raise _Broken
        else:  # an interim response: the real one follows
            self._fields = []

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._status > 0

    # --- what was parsed, delivered ---

    def _feed_beyond_room(self, data: bytes) -> None:
        """More input than fits into what is left for a head: either body follows, or nothing but overhead."""
        if not self._status:
            self._parser.feed_data(data[: self._room])
            self._require_head()
            data = data[self._room :]
        self._parser.feed_data(data)
        if not (self._pieces or self._complete):
            raise _Broken("the response carries too much besides its body")

    def _require_head(self) -> None:
        if not self._status:
            raise _Broken(f"the response head is larger than {self._pool.max_head} bytes")

    def _deliver(self, exchange: Exchange) -> None:
        if self._status and not self._announced:
            self._announced = True
            headers = Headers(self._fields)
            if self._may_be_coded:
                self._adopt_coding(headers)
            elif self._complete and self._reusable and self._status == 200:
                self._known.learn(self._started, headers)
            self._started = b""
            if not (self._complete or self._may_be_coded):
                self._expect_rest(headers)
            exchange.receiver.responded(self._status, headers)
        pieces = self._pieces
        if pieces:
            self._pieces = []
            self._room = self._pool.max_head
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._inflater is None:
                self._accept(exchange, data)
            else:
                self._inflate(exchange, self._inflater, data)
        if self._complete and not exchange.done:
            self._end(exchange)

    def _expect_rest(self, headers: Headers) -> None:
        """Take what is left of a bulky body past the parser, if its length is known; the next response gets another."""
        rest = headers.length - sum(map(len, self._pieces))
        if rest > _BULKY:
            self._rest = rest
            self._parser = httptools.HttpResponseParser(self)

    def _adopt_coding(self, headers: Headers) -> None:
        transfer = headers.get(b"transfer-encoding")
        if transfer is not None and transfer.strip().lower() != "chunked":
            raise _Broken("the response has an unknown transfer-encoding")
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            try:
                self._inflater = inflater(encoding)
            except UnknownEncoding:
                raise _Broken("the response has an unknown content-encoding") from None

    def _inflate(self, exchange: Exchange, coded: Inflater, data: bytes) -> None:
        try:
            for piece in coded.feed(data):
                self._accept(exchange, piece)
                if exchange.done:
                    return
        except zlib.error:
            raise _Broken("the response's content-encoding is corrupt") from None

    def _accept(self, exchange: Exchange, data: bytes) -> None:
        if exchange.done:
            return
        exchange.left -= len(data)
        if exchange.left < 0:
            self.fail("limit", f"the response is larger than {self._pool.max_body} bytes")
        else:
            exchange.receiver.received(data)

    def _ends_with_connection(self) -> bool:
        """Whether closing the connection is how this response says that it is complete."""
        fields = {name.lower() for name, _ in self._fields}
        return self._announced and not fields & {b"content-length", b"transfer-encoding"}

    def _end_or_fail(self, exchange: Exchange) -> None:
        try:
            self._end(exchange)
        except _Broken as exc:
            self.fail("protocol", str(exc))

    def _end(self, exchange: Exchange) -> None:
        coded, self._inflater = self._inflater, None
        if coded is not None and not coded.is_finished:
            raise _Broken("the response's content-encoding is cut off")
        exchange.done = True
        self._exchange = None
        if self._reusable and not (self._bulky and self._transport.get_write_buffer_size()):
            self._bulky = False
            self._expect_head()
            self._pool.release(self)
        else:
            self.close()
        exchange.receiver.ended()
