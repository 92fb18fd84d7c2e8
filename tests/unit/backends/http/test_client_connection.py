"""A client connection fed by hand: every framing, split at every byte, and every response that is refused."""

import gzip
import zlib

import pytest

from mcp_manifold.backends.http.client_connection import ClientConnection
from mcp_manifold.backends.http.exchange import NO_LIMIT, Exchange, ResponseHeaders
from tests.fakes.http_receiver import Recorder
from tests.fakes.http_wire import FakeKeeper, FakeTransport

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"jsonrpc":"2.0","id":1,"result":{}}'
BULK = b"0123456789abcdef" * 16_384  # more than is copied


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


def sized(body: bytes, *lines: bytes) -> bytes:
    return OK + b"".join(line + b"\r\n" for line in lines) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def chunked(*chunks: bytes, head: bytes = b"", trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return OK + head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailer + b"\r\n"


class Line:
    """A connection with one exchange on it."""

    def __init__(self, *, limit: int = 10_000, body: bytes = b"{}") -> None:
        self.keeper = FakeKeeper(max_head=2000, max_body=10_000)
        self.transport = FakeTransport()
        self.connection = ClientConnection(self.keeper)
        self.connection.connection_made(self.transport)
        self.receiver: Recorder = Recorder()
        self.ask(limit=limit, body=body)

    def ask(self, *, limit: int = 10_000, body: bytes = b"{}") -> None:
        self.exchange = Exchange(self.receiver, self.connection, limit)
        self.connection.begin(self.exchange, b"POST / HTTP/1.1\r\nhost: a\r\n", b"", body)

    def feed(self, data: bytes, step: int = 1 << 30) -> None:
        for start in range(0, len(data), step):
            if self.transport.aborted:
                return
            self.connection.data_received(data[start : start + step])
            self.keeper.run()

    def refused(self) -> str:
        assert self.transport.aborted
        assert not self.keeper.released
        assert self.receiver.failure is not None
        assert self.receiver.failure.sent
        return f"{self.receiver.failure.kind}: {self.receiver.failure}"


def fed(data: bytes, step: int = 1 << 30, *, limit: int = 10_000, body: bytes = b"{}") -> Line:
    """A connection with one exchange, which received this in pieces of `step` bytes."""
    line = Line(limit=limit, body=body)
    line.feed(data, step)
    return line


REUSABLE = {
    "sized": sized(BODY),
    "upper case names": OK + b"CONTENT-LENGTH: %d\r\n\r\n" % len(BODY) + BODY,
    "empty header": sized(BODY, b"x-empty:"),
    "chunked": chunked(BODY[:1], BODY[1:8], BODY[8:]),
    "chunk extensions": OK + b"transfer-encoding: chunked\r\n\r\n24;a=b\r\n" + BODY + b"\r\n0;x\r\n\r\n",
    "trailers": chunked(BODY, trailer=b"digest: x\r\nx: y\r\n"),
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + sized(BODY),
    "103 first": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + sized(BODY),
    "gzip": sized(gzip.compress(BODY), b"content-encoding: gzip"),
    "x-gzip, chunked": chunked(gzip.compress(BODY), head=b"Content-Encoding: X-GZIP\r\n"),
    "deflate": sized(zlib.compress(BODY), b"content-encoding: deflate"),
    "raw deflate": sized(raw_deflate(BODY), b"content-encoding: deflate"),
    "identity": sized(BODY, b"content-encoding: identity"),
    "1.0 kept alive": sized(BODY, b"connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("response", REUSABLE.values(), ids=REUSABLE)
def test_a_response_arrives_however_it_is_split_and_frees_the_connection_with_its_last_byte(response: bytes) -> None:
    for step in (1, 2, 3, 7, 1 << 30):
        line = Line()
        for turn in (1, 2):
            line.feed(response[:-1], step)
            assert line.receiver.calls.count("ended") == len(line.keeper.released) == turn - 1
            line.feed(response[-1:])
            assert line.receiver.calls.count("ended") == len(line.keeper.released) == turn
            line.ask()
        assert line.receiver.body == BODY * 2
        assert line.receiver.status == 200
        assert not line.transport.aborted


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_status_without_a_body_ends_with_its_head(status: bytes) -> None:
    line = fed(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\n\r\n", 1)
    assert line.receiver.calls == ["responded", "ended"]


def test_headers_are_found_in_any_case_and_joined_when_repeated() -> None:
    line = fed(sized(b"", b"X-One: 1", b"Vary: a", b"vary: b").replace(b"200 OK", b"302 Found"))
    headers = line.receiver.headers
    assert headers is not None
    assert line.receiver.status == 302
    assert (headers.get("x-one"), headers.get(b"vary"), headers.get("none")) == ("1", "a, b", None)
    assert list(headers)[:2] == [("X-One", "1"), ("Vary", "a")]
    assert repr(headers) == "<ResponseHeaders X-One, Vary, vary, content-length>"


CLOSING = {
    "connection: close": sized(BODY, b"connection: close"),
    "1.0": sized(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("response", CLOSING.values(), ids=CLOSING)
def test_a_connection_the_peer_will_close_is_not_reused(response: bytes) -> None:
    line = fed(response)
    assert line.receiver.calls[-1] == "ended"
    assert line.transport.aborted
    assert not line.keeper.released


@pytest.mark.parametrize("coding", [b"", b"content-encoding: gzip\r\n"])
def test_a_response_without_a_length_ends_with_the_connection(coding: bytes) -> None:
    line = fed(OK + coding + b"\r\n" + (gzip.compress(BODY) if coding else BODY), 5)
    assert "ended" not in line.receiver.calls
    line.connection.connection_lost(None)
    assert line.receiver.body == BODY
    assert line.receiver.calls[-1] == "ended"


LOST = {
    "no byte": (b"", None, "reset"),
    "status line": (OK, None, "reset"),
    "sized": (sized(BODY)[:-1], None, "reset"),
    "chunked": (chunked(BODY)[:-1], None, "reset"),
    "head": (OK + b"content-length: 0", None, "reset"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n", None, "reset"),
    "reset without a length": (OK + b"\r\n" + BODY, ConnectionResetError(), "reset"),
    "cut off gzip": (OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(BODY)[:-3], None, "protocol"),
}


@pytest.mark.parametrize(("part", "reason", "kind"), LOST.values(), ids=LOST)
def test_a_connection_lost_early_fails_its_exchange(part: bytes, reason: Exception | None, kind: str) -> None:
    line = fed(part)
    line.connection.connection_lost(reason)
    assert line.refused().startswith(f"{kind}: ")


REFUSED = {
    "garbage": b"\x16\x03\x01 hello",
    "other protocol": b"ICY 200 OK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "status 99": b"HTTP/1.1 099 No\r\ncontent-length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "two lengths": sized(BODY, b"content-length: 36"),
    "length and chunked": sized(BODY, b"transfer-encoding: chunked"),
    "negative length": OK + b"content-length: -1\r\n\r\n",
    "folded header": OK + b"x: a\r\n b\r\n\r\n",
    "NUL in header": OK + b"x: a\0b\r\n\r\n",
    "bad chunk size": OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "transfer-encoding gzip": OK + b"transfer-encoding: gzip\r\n\r\n" + BODY,
    "transfer-encoding gzip, chunked": OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
    "unknown content-encoding": sized(BODY, b"content-encoding: br"),
    "two content-encodings": sized(BODY, b"content-encoding: gzip", b"content-encoding: gzip"),
    "corrupt gzip": sized(BODY, b"content-encoding: gzip"),
    "cut off gzip": sized(gzip.compress(BODY)[:-2], b"content-encoding: gzip"),
    "data after gzip": sized(gzip.compress(BODY) + b"x", b"content-encoding: gzip"),
    "endless head": OK + b"x: " + b"a" * 3000,
    "large head": sized(BODY, b"x: " + b"a" * 2000),
    "endless status line": b"HTTP/1.1 200 " + b"a" * 3000,
    "endless interim responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
    "length in a trailer": chunked(BODY, trailer=b"content-length: 7\r\n"),
    "endless trailer": chunked(BODY)[:-2] + b"x: " + b"a" * 5000,
    "endless chunk extension": OK + b"transfer-encoding: chunked\r\n\r\n2;" + b"a" * 5000,
}


@pytest.mark.parametrize("response", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("step", [1, 100, 2100])
def test_an_invalid_response_is_refused(response: bytes, step: int) -> None:
    line = fed(response, step)
    assert line.refused().startswith("protocol: ")
    assert line.receiver.calls[-1] == "failed"


@pytest.mark.parametrize("after", [b"x", b"HTTP/1.1 200 OK\r\n", sized(b"evil")])
@pytest.mark.parametrize("response", [sized(BODY), chunked(BODY)])
def test_bytes_after_the_end_fail_the_exchange_they_came_with(response: bytes, after: bytes) -> None:
    line = fed(response + after)
    assert line.refused().startswith("protocol: ")
    assert b"evil" not in line.receiver.body


@pytest.mark.parametrize("after", [b"\r\n", b"x", sized(b"evil")])
def test_bytes_while_idle_close_the_connection(after: bytes) -> None:
    line = fed(sized(BODY))
    assert line.receiver.calls[-1] == "ended"
    line.feed(after)
    assert line.transport.aborted


def test_a_head_within_the_limit_may_come_with_much_body() -> None:
    line = fed(sized(b"x" * 9000, b"x: " + b"a" * 1900))
    assert line.receiver.body == b"x" * 9000


BOMB = sized(gzip.compress(bytes(50_000_000)), b"content-encoding: gzip")


@pytest.mark.parametrize(
    ("response", "limit", "step"),
    [
        *((sized(b"x" * 101), 100, step) for step in (1, 1 << 30)),
        *((chunked(*[b"x"] * 101), 100, step) for step in (1, 1 << 30)),
        *((OK + b"\r\n" + b"x" * 101, 100, step) for step in (1, 1 << 30)),
        (BOMB, 100_000, 1 << 30),
        (sized(BULK), 150_000, 100_000),
    ],
)
def test_a_body_beyond_the_limit_is_refused(response: bytes, limit: int, step: int) -> None:
    line = fed(response, step, limit=limit)
    assert line.refused().startswith("limit: ")
    assert len(line.receiver.body) <= limit


def test_pieces_are_delivered_as_they_come() -> None:
    line = fed(chunked(b"a")[: -len(b"0\r\n\r\n")])
    assert line.receiver.calls == ["responded", "received"]
    line.feed(b"1\r\nb\r\n1\r\nc\r\n")
    assert line.receiver.calls == ["responded", "received", "received"]
    assert line.receiver.body == b"abc"


def test_an_aborted_exchange_closes_its_connection_and_says_nothing_more() -> None:
    line = fed(sized(BODY)[:-1])
    line.exchange.abort()
    line.connection.data_received(b"}")
    line.connection.connection_lost(None)
    assert line.transport.aborted
    assert line.receiver.calls == ["responded", "received"]


def test_an_exchange_aborted_by_its_receiver_gets_nothing_of_what_came_along() -> None:
    line = Line()

    class Refusing(Recorder):
        def responded(self, status: int, headers: ResponseHeaders) -> None:
            super().responded(status, headers)
            line.exchange.abort()

    line.receiver = line.exchange.receiver = Refusing()
    line.feed(sized(BODY))
    assert line.receiver.calls == ["responded"]
    assert line.transport.aborted
    assert not line.keeper.released


def test_aborting_a_finished_exchange_leaves_the_next_one_alone() -> None:
    line = fed(sized(BODY))
    finished = line.exchange
    line.ask()
    finished.abort()
    line.feed(sized(BODY))
    assert not line.transport.aborted
    assert line.receiver.calls.count("ended") == 2


def test_the_body_is_written_with_its_length_and_a_large_one_is_not_copied() -> None:
    large = b"x" * 100_000
    line = Line(body=large)
    assert line.transport.written[0].endswith(b"\r\ncontent-length: 100000\r\n\r\n")
    assert line.transport.written[1] is large
    assert Line(body=b"").transport.written == [b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"]


def test_a_response_that_overtakes_its_large_request_ends_the_connection() -> None:
    line = Line(body=b"x" * 100_000)
    line.transport.unsent = 5000
    line.feed(sized(b"too large"))
    assert line.receiver.calls[-1] == "ended"
    assert line.transport.aborted


# --- past the parser ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1000, 4096, 100_000, 1 << 30])
def test_a_bulky_body_arrives_whole_and_the_next_response_is_read_as_ever(step: int) -> None:
    line = Line(limit=NO_LIMIT)
    for response in (sized(BULK), sized(BODY), sized(BULK), chunked(BODY)):
        line.feed(response, step)
        line.ask(limit=NO_LIMIT)
    assert line.receiver.body == (BULK + BODY) * 2
    assert line.receiver.calls.count("ended") == 4
    assert not line.transport.aborted


def test_a_bulky_body_with_a_wrong_length_is_refused() -> None:
    line = fed(sized(BULK)[:-10], limit=NO_LIMIT)
    line.feed(BULK[:11])
    assert line.refused().startswith("protocol: ")
    line = fed(sized(BULK)[:-1], 100_000, limit=NO_LIMIT)
    line.connection.connection_lost(None)
    assert line.refused().startswith("reset: ")


def test_a_repeated_head_is_recognized_and_other_heads_are_parsed() -> None:
    line = Line()
    for body in (BODY, BODY + b" ", b"", BODY):
        line.feed(sized(body))
        line.ask()
    line.feed(sized(BODY, b"content-type: text/event-stream"))
    assert line.receiver.headers is not None
    assert line.receiver.headers.get("content-type") == "text/event-stream"
    assert line.receiver.body == BODY + BODY + b" " + BODY + BODY
    assert line.receiver.calls.count("ended") == 5
    line.ask()
    line.feed(sized(BODY) + b"HTTP/1.1 200 OK\r\n")
    assert line.transport.aborted, "bytes behind the body are refused for a recognized head too"
