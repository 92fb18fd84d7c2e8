"""Heads recognised by their bytes: the same result as a parser, or none."""

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_manifold.http1.known_heads import HeadTemplate, KnownHeads

HEAD = b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\naccept: */*\r\n\r\n"


def message(body: bytes, head: bytes = HEAD) -> bytes:
    return head % len(body) + body


def learnt(body: bytes = b"{}", head: bytes = HEAD) -> HeadTemplate:
    template = HeadTemplate.of(message(body, head))
    assert template is not None
    return template


@pytest.mark.parametrize("body", [b"", b"{}", b'{"a":1}', b"x" * 100_000, b"\r\n\r\n", b"content-length: 7\r\n"])
def test_another_message_with_that_head_is_its_body(body: bytes) -> None:
    assert learnt().body(message(body)) == body


@pytest.mark.parametrize(
    "other",
    [
        b"", b"POST", message(b"{}")[:-1], message(b"{}") + b"!", message(b"{}") * 2,
        message(b"{}").replace(b"Host: x", b"Host: y"), message(b"{}").replace(b"Content-Length", b"content-length"),
        message(b"{}").replace(b"accept: */*", b"accept: */*\r\nx: y"),
        message(b"{}").replace(b": 2\r\n", b": 2 \r\n"), message(b"{}").replace(b": 2\r\n", b": +2\r\n"),
        message(b"{}").replace(b": 2\r\n", b": 2,2\r\n"), message(b"{}").replace(b": 2\r\n", b": \xc2\xb2\r\n"),
        message(b"{}").replace(b": 2\r\n", b": \r\n"), message(b"{}").replace(b": 2\r\n", b": 00000000002\r\n"),
        message(b"{}").replace(b"\r\naccept", b"\naccept"),
    ],
)  # fmt: skip
def test_a_message_with_any_other_head_is_not_recognised(other: bytes) -> None:
    assert learnt().body(other) is None


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nhost: x\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 2, 2\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: \r\n\r\n",
        b"POST / HTTP/1.1\r\nx-content-length: 2\r\n\r\n", b"POST / HTTP/1.1\r\ncontent-length: 2\r\n", b"",
    ],
)  # fmt: skip
def test_a_head_that_does_not_give_one_plain_length_is_not_learnt(head: bytes) -> None:
    assert HeadTemplate.of(head + b"{}") is None


class Parsed:
    """What the parser makes of one piece of input."""

    def __init__(self, data: bytes) -> None:
        self.lines: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.messages = 0
        self._parser = httptools.HttpRequestParser(self)
        self.is_accepted = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.is_accepted = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.messages += 1


def without_length(lines: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [line for line in lines if line[0].lower() != b"content-length"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message with such a head, and perhaps something changed in it."""
    data = bytearray(message(draw(st.binary(max_size=40))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r", b"\n", b" ", b"0", b"7", b"\r\n", b":"])
        )
    return bytes(data)


@given(damaged())
@example(message(b"{}").replace(b": 2", b":  2"))
def test_a_recognised_message_equals_what_a_parser_finds(data: bytes) -> None:
    body = learnt().body(data)
    if body is None:
        return
    parsed, first = Parsed(data), Parsed(message(b"{}"))
    assert parsed.is_accepted
    assert parsed.messages == 1
    assert parsed.body == body
    assert without_length(parsed.lines) == without_length(first.lines)


def test_the_last_heads_are_known_and_older_ones_forgotten() -> None:
    known = KnownHeads[int](2)
    heads = [HEAD.replace(b"Host: x", b"Host: %d" % number) for number in range(3)]
    for number, head in enumerate(heads):
        known.learn(message(b"first", head), number)
    assert known.find(message(b"{}", heads[0])) is None
    assert known.find(message(b"{}", heads[1])) == (1, b"{}")
    assert known.find(message(b"", heads[2])) == (2, b"")


@pytest.mark.parametrize("input_", [message(b"{}") * 2, message(b"{}")[:-1], message(b"{}") + b"POST", b"", b"{}"])
def test_only_a_single_complete_message_is_learnt(input_: bytes) -> None:
    known = KnownHeads[int](2)
    known.learn(input_, 1)
    assert known.find(message(b"{}")) is None
