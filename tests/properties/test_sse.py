"""The event-stream parser against a plain implementation of the specification, for every cut of the stream."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.wire.event_stream import Event, EventParser, encode_event

_FIELDS = [b"data", b"event", b"id", b"retry", b"data: ", b"id: "]
_ENDS = [b"\n", b"\r", b"\r\n", b"\n\n"]
_REST = [b":", b" ", b"a", b"12", b"\0", b"\xef\xbb\xbf", "\u2028".encode(), b"\xff"]
_PIECES = st.sampled_from(_FIELDS + _ENDS + _REST)
_STREAMS = st.lists(_PIECES, max_size=40).map(b"".join)


def reference(stream: bytes) -> list[Event]:
    """Parses the whole stream at once, one rule per line, in any time."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))[:-1]
    events = []
    block: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line:
            match = re.fullmatch(rb"([^:]*)(?:: ?(.*))?", line, re.DOTALL)
            assert match
            block.append((match[1], match[2] or b""))
            continue
        data = [value for name, value in block if name == b"data"]
        names = [value.decode(errors="replace") for name, value in block if name == b"event"]
        ids = [value.decode(errors="replace") for name, value in block if name == b"id" and b"\0" not in value]
        retries = [int(value) for name, value in block if name == b"retry" and re.fullmatch(rb"[0-9]{1,15}", value)]
        if data or ids or retries:
            name = names[-1] if names and names[-1] else "message"
            events.append(Event(b"\n".join(data), name, ids[-1] if ids else None, retries[-1] if retries else None))
        block = []
    return events


@given(stream=_STREAMS, cuts=st.lists(st.integers(0, 200)))
def test_events_follow_the_specification_however_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    parser = EventParser(10_000)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [e for start, end in itertools.pairwise(places) for e in parser.feed(stream[start:end])]
    assert events == reference(stream)


_LINES = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"]), min_size=1)


@given(data=st.binary(max_size=200), event=_LINES, id_=st.none() | _LINES)
def test_encoded_events_parse_back(data: bytes, event: str, id_: str | None) -> None:
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    wanted = Event(lines, event, id_)
    assert EventParser(10_000).feed(encode_event(data, event=event, id=id_)) == [wanted]
