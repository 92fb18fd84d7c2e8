"""The event-stream format: what `tests/properties` do not generate, limits and writing."""

import json

import pytest

from mcp_manifold.wire.event_stream import Event, EventParser, EventTooLarge, encode_event


def parse(*pieces: bytes, max_event: int = 1000) -> list[Event]:
    parser = EventParser(max_event)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        *(
            (f"data: a{char}b\n\n".encode(), [Event(f"a{char}b".encode())])
            for char in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c")
        ),
        (b"retry: 250\n\n", [Event(b"", retry=250)]),
        (b": hello\n\n:\nfoo: bar\nDATA: no\ndata: a\n\n", [Event(b"a")]),
        (b"id: a\0b\nretry: 1s\nretry: -1\nretry:" + b"9" * 500 + b"\ndata: a\n\n", [Event(b"a")]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_stream_is_cut_into_its_events(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events
    assert parse(*(bytes([byte]) for byte in stream)) == events


def test_an_event_is_dispatched_at_the_cr_without_waiting_for_the_lf() -> None:
    parser = EventParser(1000)
    assert parser.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert parser.feed(b"\ndata: b\n\n") == [Event(b"b")]
    assert parser.feed(b"data: c\r") + parser.feed(b"data: d\n\n") == [Event(b"c\nd")]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n", b"data: xx\n" * 20, b": " + b"x" * 100 + b"\n",
        b"event: a\n" * 20,
    ],
    ids=["unfinished", "one-line", "many-lines", "comment", "no-data"],
)  # fmt: skip
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_an_event_over_the_limit_is_refused_however_it_is_cut(stream: bytes, piece: int) -> None:
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    with pytest.raises(EventTooLarge, match="64"):
        parse(*pieces, max_event=64)


def test_the_limit_is_per_event_not_per_stream() -> None:
    assert len(parse(b"data: " + b"x" * 50 + b"\n\n" + b": beat\n\n" * 50 + b"data: y\n\n", max_event=64)) == 2


def test_a_huge_line_in_many_pieces_is_reassembled() -> None:
    parser = EventParser(32 << 20)
    piece = b"x" * 65536
    events = parser.feed(b"data: ")
    for _ in range(320):
        events += parser.feed(piece)
    events += parser.feed(b"\n\n")
    assert [len(event.data) for event in events] == [320 * 65536]


def test_the_repr_of_a_parser_counts_and_shows_no_data() -> None:
    parser = EventParser(1000)
    parser.feed(b"data: secret\ndata: se")
    assert repr(parser) == "<EventParser holding=21 max=1000>"


def test_json_with_line_breaks_between_tokens_survives() -> None:
    assert encode_event(b"{}") == b"event: message\ndata: {}\n\n"
    raw = b'{\r\n"a":\r[1,\n2]\n}'
    (event,) = parse(encode_event(raw))
    assert json.loads(event.data) == json.loads(raw)


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_a_name_or_id_with_a_line_break_or_nul_is_refused(bad: str) -> None:
    assert encode_event(b"{}", event="endpoint", id="5") == b"id: 5\nevent: endpoint\ndata: {}\n\n"
    for event, id_ in (("message", bad), (bad, None)):
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            encode_event(b"x", event=event, id=id_)
