"""The event-stream format, example by example."""

import json

import pytest

from mcp_manifold.wire.event_stream import Event, EventParser, EventTooLarge, encode_event


def parse(*pieces: bytes, max_event: int = 1000) -> list[Event]:
    parser = EventParser(max_event)
    return [event for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_a_line(end: bytes) -> None:
    assert parse(b"event: a" + end + b"data: x" + end + end) == [Event(b"x", "a")]


def test_a_crlf_cut_in_two_is_one_line_end() -> None:
    assert parse(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n") == [Event(b"a\nb")]


def test_an_event_is_dispatched_at_the_cr_without_waiting_for_the_lf() -> None:
    parser = EventParser(1000)
    assert parser.feed(b"data: a\r\n\r") == [Event(b"a")]
    assert parser.feed(b"\ndata: b\n\n") == [Event(b"b")]


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_no_other_character_ends_a_line(char: str) -> None:
    assert parse(f"data: a{char}b\n\n".encode()) == [Event(f"a{char}b".encode())]


def test_several_data_lines_are_joined_by_lf() -> None:
    assert parse(b"data: a\ndata:\ndata:  b\n\n") == [Event(b"a\n\n b")]


def test_only_one_space_after_the_colon_is_removed() -> None:
    assert parse(b"data:x\n\ndata: x\n\ndata:  x\n\n") == [Event(b"x"), Event(b"x"), Event(b" x")]


@pytest.mark.parametrize("pieces", [(b"\xef\xbb\xbfdata: a\n\n",), (b"\xef", b"\xbb", b"\xbfdata: a\n\n")])
def test_a_byte_order_mark_at_the_start_is_removed(pieces: tuple[bytes, ...]) -> None:
    assert parse(*pieces) == [Event(b"a")]


def test_a_byte_order_mark_anywhere_else_is_part_of_the_name() -> None:
    assert parse(b"data: a\n\n\xef\xbb\xbfdata: b\n\n") == [Event(b"a")]


def test_comments_and_unknown_fields_are_ignored() -> None:
    assert parse(b": hello\n\n:\nfoo: bar\nDATA: no\ndata: a\n\n") == [Event(b"a")]


def test_a_field_without_a_colon_has_an_empty_value() -> None:
    assert parse(b"data\ndata\n\n") == [Event(b"\n")]


def test_a_block_without_data_is_not_dispatched_and_resets_the_name() -> None:
    assert parse(b"event: a\n\ndata: b\n\n") == [Event(b"b")]


def test_a_priming_event_reports_its_id() -> None:
    assert parse(b"id: 7\ndata:\n\nid: 8\n\n") == [Event(b"", id="7"), Event(b"", id="8")]


def test_a_retry_alone_is_reported() -> None:
    assert parse(b"retry: 250\n\n") == [Event(b"", retry=250)]


def test_an_id_applies_to_its_own_block_only() -> None:
    assert parse(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n") == [
        Event(b"a", id="1"),
        Event(b"b"),
        Event(b"c", id=""),
    ]


def test_an_id_with_nul_and_an_invalid_retry_are_ignored() -> None:
    assert parse(b"id: a\0b\nretry: 1s\nretry: -1\nretry:" + b"9" * 5000 + b"\ndata: a\n\n", max_event=9000) == [
        Event(b"a")
    ]


def test_an_event_cut_off_by_the_end_of_the_stream_is_not_reported() -> None:
    assert parse(b"data: a\n\ndata: b\n") == [Event(b"a")]


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


def test_an_encoded_event_has_its_name_and_id() -> None:
    assert encode_event(b"{}") == b"event: message\ndata: {}\n\n"
    assert encode_event(b"{}", event="endpoint", id="5") == b"id: 5\nevent: endpoint\ndata: {}\n\n"


def test_json_with_line_breaks_between_tokens_survives() -> None:
    raw = b'{\r\n"a":\r[1,\n2]\n}'
    (event,) = parse(encode_event(raw))
    assert json.loads(event.data) == json.loads(raw)


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b"])
def test_a_name_or_id_with_a_line_break_or_nul_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_event(b"x", id=bad)
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_event(b"x", event=bad)
