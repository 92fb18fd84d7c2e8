"""One HTTP/1.1 connection to a backend, idle or busy with one Exchange. The pool opens, selects and keeps connections.

Each piece of input is parsed first and delivered after: no receiver runs inside the parser. The connection returns to
its pool before the receiver hears that the response has ended: what the receiver sends then reuses the connection. A
response whose end is ambiguous is never repaired; the connection is closed instead.
"""

import asyncio
import selectors
import ssl
import zlib
from collections.abc import Iterator
from math import inf
from typing import Final, Protocol

import httptools

from mcp_manifold.backends.http.exchange import Exchange, FailureKind, ResponseHeaders
from mcp_manifold.backends.http.inflate import Inflater, UnknownEncoding, inflater
from mcp_manifold.backends.http.redirect import REDIRECTS
from mcp_manifold.clock import RateLimiter
from mcp_manifold.http1.known_heads import KnownHeads
from mcp_manifold.paced_reader import SMALL_PORTION, PacedReader, Pacer, line_ends

_BULKY: Final = 65536
"""Bytes of a body above which it is written separately: copying it behind its head would cost more than a write."""
STREAM_LINES_A_SECOND: Final = 100_000
"""Lines that are read from one event stream in one second; the rest waits in the connection."""

_TLS_ALERT: Final = b"\x15\x03"
"""How the TLS message begins that refuses plain HTTP."""


class Keeper(Protocol):
    """The pool, as its connections see it."""

    where: str
    max_body: int
    max_head: int
    pacer: Pacer

    @property
    def hint(self) -> str:
        """What the user may try if a server closes the connection without a response."""

    def opened(self, connection: "ClientConnection") -> None:
        """Add a connection that has just opened."""

    def release(self, connection: "ClientConnection") -> None:
        """Take back a connection that is free for the next request."""

    def forget(self, connection: "ClientConnection") -> None:
        """Give a closing connection no more requests."""

    def closed_idle(self, connection: "ClientConnection") -> None:
        """Handle that the server closed this connection while it was idle."""

    def redirect(self, exchange: Exchange, headers: ResponseHeaders) -> None:
        """Follow the redirect that answered this request, if that is allowed."""

    def send_again(self, exchange: Exchange) -> None:
        """Send a request once more that the server did not process."""

    def lost(self, connection: "ClientConnection") -> None:
        """Remove a closed connection; another one may be opened instead."""


def tls_reason(exc: ssl.SSLError) -> str:
    """The reason why a TLS handshake failed, as a sentence."""
    code = exc.reason or ""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {exc.verify_message}"
    if "CERTIFICATE_REQUIRED" in code:
        return "the server requires a client certificate"
    if "ALERT_HANDSHAKE_FAILURE" in code:
        return "the server refused the TLS handshake; it may require a client certificate"
    if code in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "the server does not speak TLS on that port; use http:// in the url"
    return f"the TLS handshake failed: {code or 'connection closed'}"


class _Broken(Exception):
    """The response is invalid in a way that the parser accepts."""


class ClientConnection(asyncio.Protocol):
    """One connection: idle, or busy with one exchange. Methods named `on_...` are the parser's callbacks."""

    _transport: asyncio.Transport

    def __init__(self, pool: Keeper) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._pieces: list[bytes] = []
        self._inflater: Inflater | None = None
        self._decoded: Iterator[bytes] | None = None
        """The rest of a coded piece, while it is decoded."""
        self._lines = RateLimiter(STREAM_LINES_A_SECOND)
        self._reader: PacedReader
        self._bulky = self._reusable = False
        self._known: KnownHeads[ResponseHeaders] = KnownHeads(1)
        self._rest = 0
        """Remaining bytes of a body that bypasses the parser."""
        self._started = b""
        """The piece of input in which the current response began."""
        self.idle_since = 0.0
        self.keep_alive = inf
        """Seconds after which the server closes the connection if it is idle, as it said in its last response."""
        self.has_served = False
        """Whether it brought a response before."""
        self.is_closed = False
        self._expect_head()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "busy" if self._exchange else "idle"
        return f"<ClientConnection {self._pool.where} {state}>"

    def _expect_head(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._status = 0  # set once the final response's head is complete
        self._announced = self._complete = self._may_be_coded = self._has_begun = self._is_stream = False
        self._room = self._pool.max_head  # bytes that may still come without a complete head or a piece of body

    def begin(self, exchange: Exchange, head: bytes, extra: bytes, body: bytes) -> None:
        """Write a request, and pass its response to `exchange`."""
        self._exchange = exchange
        exchange.start(self)
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
        """Whether the connection can take a request: open, and idle since `oldest` or later."""
        return self.idle_since >= oldest and not self._transport.is_closing()

    def begin_idle(self, now: float) -> None:
        """Note that nothing uses it from now on."""
        self.idle_since = now

    def age(self, seconds: float) -> None:
        """Treat the connection as idle for longer than it is, because its server closes idle ones sooner."""
        self.idle_since -= seconds

    def is_ended(self) -> bool:
        """Whether the server has closed the connection, or sent bytes that the event loop has not read yet."""
        with selectors.DefaultSelector() as look:
            look.register(self._transport.get_extra_info("socket").fileno(), selectors.EVENT_READ)
            return bool(look.select(0))

    def give_up(self, exchange: Exchange) -> None:
        """Close the connection: reading an unwanted response to its end costs more than a new connection."""
        if exchange is self._exchange:
            self.close()

    def close(self) -> None:
        """Close now. Drop the exchange, if any, and tell its receiver nothing."""
        if not self.is_closed:
            self.is_closed = True
            self._exchange = None
            self._decoded = None
            self._pool.forget(self)
            self._transport.abort()
            self._reader.stop()

    def fail(self, kind: FailureKind, reason: str) -> None:
        """Close the connection, and report the reason to the receiver of the response."""
        exchange = self._exchange
        self.close()
        if exchange is None:
            return
        if kind == "reset" and self.has_served and exchange.is_repeatable and not self._has_begun:
            self._pool.send_again(exchange)
            return
        exchange.fail(kind, f"{self._pool.where}: {reason}")

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream connection's transport is a Transport
        self._reader = PacedReader(self._read, self._pool.pacer, self._transport)
        self._pool.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._reader.is_behind or (len(data) > SMALL_PORTION and not self._rest):
            exchange = None if self._reader.is_behind or self._has_begun else self._exchange
            known = None if exchange is None else self._known.find(data)
            if exchange is None or known is None:
                self._reader.feed(data)
            else:  # a whole response, of any size
                self._recognised(exchange, *known)
        elif self._read(data) is not None:
            self._reader.wait(0, is_unfinished=True)

    def _read(self, data: bytes) -> float | None:
        """Handle a portion of input, or without input the rest of the last one; see `paced_reader.Take`."""
        exchange = self._exchange
        if exchange is None:
            if data:  # unsolicited bytes would be taken for the next response
                self.close()
            return None
        if self._rest:
            self._take(exchange, data)
            return None
        if not self._has_begun:
            known = self._known.find(data)
            if known is not None:
                self._recognised(exchange, *known)
                return None
            self._started = data
        self._parse(exchange, data)
        if self._exchange is not exchange:
            return None
        is_coded, seconds = self._decoded is not None, 0.0
        if self._is_stream and (is_coded or len(data) >= SMALL_PORTION):
            seconds = self._lines.rest(line_ends(data), self._pool.pacer.clock.now())
        return seconds or (0 if is_coded else None)

    def _parse(self, exchange: Exchange, data: bytes) -> None:
        try:
            if not data:
                pass
            elif len(data) <= self._room:
                self._room -= len(data)
                self._parser.feed_data(data)
            else:
                self._feed_beyond_room(data)
            self._deliver(exchange)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Broken) as exc:
            reason = "the response is not valid HTTP" if not isinstance(exc, _Broken) else str(exc)
            if self._started.startswith(_TLS_ALERT):
                reason = "the server speaks TLS on that port; use https:// in the url"
            self.fail("protocol", reason)

    def _recognised(self, exchange: Exchange, headers: ResponseHeaders, body: bytes) -> None:
        """Handle a complete response whose head equals the previous one's."""
        self._reusable = True
        exchange.receiver.responded(200, headers)
        if body:
            self._accept(exchange, body)
        if not exchange.done:
            self._end(exchange)

    def _take(self, exchange: Exchange, data: bytes) -> None:
        """Handle more of a body of known length, without the copy that the parser would make."""
        self._rest -= len(data)
        if self._rest < 0:
            self.fail("protocol", "the response is longer than declared")
            return
        self._accept(exchange, data)
        if not self._rest and not exchange.done:
            self._end(exchange)

    def eof_received(self) -> None:
        if self._exchange is None:
            self._pool.closed_idle(self)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del self._parser  # breaks a reference cycle
        self._reader.stop()
        self._pool.lost(self)
        exchange = self._exchange
        if exchange is None:
            if not self.is_closed:
                self._pool.closed_idle(self)
            self.is_closed = True
        elif exc is None and self._ends_with_connection():
            self._end_or_fail(exchange)
        elif isinstance(exc, ssl.SSLError):
            self.fail("tls", tls_reason(exc))
        else:
            hint = "" if self._has_begun else self._pool.hint
            self.fail("reset", f"the connection was lost before the response was complete{hint}")

    # --- the parser's calls ---

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Broken
        self._has_begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # trailers are ignored
            self._fields.append((name, value))
            if 15 < len(name) < 18:  # perhaps content-encoding or transfer-encoding; `_deliver` looks closer
                self._may_be_coded = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._status = status
            self._reusable = self._parser.should_keep_alive()
        elif status < 100 or status == 101:
            raise _Broken
        else:  # an interim response; the final one follows
            self._fields = []

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._complete = self._status > 0

    # --- delivery ---

    def _feed_beyond_room(self, data: bytes) -> None:
        """Input beyond the room for a head: it must complete the head or bring body, or the response is invalid."""
        if not self._status:
            self._parser.feed_data(data[: self._room])
            self._require_head()
            data = data[self._room :]
        self._parser.feed_data(data)
        if not (self._pieces or self._complete):
            raise _Broken("the response has too much overhead besides its body")

    def _require_head(self) -> None:
        if not self._status:
            raise _Broken(f"the response head is larger than {self._pool.max_head} bytes")

    def _deliver(self, exchange: Exchange) -> None:
        if self._status and not self._announced:
            self._announce(exchange, ResponseHeaders(self._fields))
        pieces = self._pieces
        if pieces:
            self._pieces = []
            self._room = self._pool.max_head
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._inflater is None:
                self._accept(exchange, data)
            else:
                self._decoded = self._inflater.feed(data)
        if self._decoded is not None:
            self._decode(exchange, self._decoded)
        if self._complete and self._decoded is None and not exchange.done:
            self._end(exchange)

    def _announce(self, exchange: Exchange, headers: ResponseHeaders) -> None:
        self._announced = True
        self.keep_alive = headers.keep_alive
        self._is_stream = headers.is_event_stream
        if self._may_be_coded:
            self._adopt_coding(headers)
        elif self._complete and self._reusable and self._status == 200:
            self._known.learn(self._started, headers)
        self._started = b""
        if not (self._complete or self._may_be_coded):
            self._expect_rest(headers)
        if self._status in REDIRECTS:
            self._pool.redirect(exchange, headers)
        if not self._complete:
            exchange.answered()
        exchange.receiver.responded(self._status, headers)

    def _expect_rest(self, headers: ResponseHeaders) -> None:
        """Let the rest of a large body of known length bypass the parser; the next response gets a new parser."""
        rest = headers.length - sum(map(len, self._pieces))
        if rest > _BULKY:
            self._rest = rest
            self._parser = httptools.HttpResponseParser(self)

    def _adopt_coding(self, headers: ResponseHeaders) -> None:
        transfer = headers.get(b"transfer-encoding")
        if transfer is not None and transfer.strip().lower() != "chunked":
            raise _Broken("the response has an unknown transfer-encoding")
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            try:
                self._inflater = inflater(encoding)
            except UnknownEncoding:
                raise _Broken("the response has an unknown content-encoding") from None

    def _decode(self, exchange: Exchange, decoded: Iterator[bytes]) -> None:
        """Decode what one turn can handle."""
        try:
            for portion in decoded:
                self._accept(exchange, portion)
                if exchange.done:
                    break
                if len(portion) >= SMALL_PORTION:
                    self._lines.rest(line_ends(portion), self._pool.pacer.clock.now())
                    return
        except zlib.error:
            raise _Broken("the response's content-encoding is corrupt") from None
        self._decoded = None

    def _accept(self, exchange: Exchange, data: bytes) -> None:
        if not (exchange.done or exchange.take(data)):
            self.fail("limit", f"the response is larger than {self._pool.max_body} bytes")

    def _ends_with_connection(self) -> bool:
        """Whether the end of the connection is the end of this response: it declares no length."""
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
            raise _Broken("the response's content-encoding is truncated")
        self._exchange = None
        self.has_served = True
        if (
            self._reusable
            and not self._reader.is_behind
            and not (self._bulky and self._transport.get_write_buffer_size())
        ):
            self._bulky = False
            self._expect_head()
            self._pool.release(self)
        else:
            self.close()
        exchange.end()
