"""Lines of a byte stream: equal to a split, however the stream is cut; an oversized line costs only itself."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.wire.lines import LineSplitter

STREAMS = st.lists(st.sampled_from([b"a", b"bb", b"\r", b"\n", b"\r\n", b"", b"xyz"]), max_size=60)


def fed(lines: LineSplitter, *pieces: bytes) -> list[bytes]:
    return [line for piece in pieces for line in lines.feed(piece)]


@given(pieces=STREAMS)
def test_lines_equal_a_split_however_the_stream_is_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces).split(b"\n")[:-1]
    expected = [line[:-1] if line.endswith(b"\r") else line for line in whole]
    assert fed(LineSplitter(10**6), *pieces) == expected


@given(pieces=STREAMS, limit=st.integers(1, 8))
def test_an_oversized_line_is_dropped_and_reported_once(pieces: list[bytes], limit: int) -> None:
    *whole, rest = b"".join(pieces).split(b"\n")
    splitter = LineSplitter(limit)
    found = fed(splitter, *pieces)
    expected = [line for line in whole if len(line) <= limit]
    assert found == [line[:-1] if line.endswith(b"\r") else line for line in expected]
    assert len(splitter.oversized) == sum(len(line) > limit for line in [*whole, rest])
    assert all(0 < len(start) <= 4096 for start in splitter.oversized)


def test_a_line_of_exactly_the_limit_passes() -> None:
    splitter = LineSplitter(4)
    assert fed(splitter, b"abcd\n") == [b"abcd"]
    assert splitter.oversized == []


def test_after_an_oversized_line_the_next_one_is_complete() -> None:
    splitter = LineSplitter(8)
    assert fed(splitter, b'{"id":7', b"xxxxxxxx", b"yyyy", b"zzz\nnext\n") == [b"next"]
    assert splitter.oversized == [b'{"id":7xxxxxxxx']


def test_only_the_start_of_an_endless_line_is_kept() -> None:
    splitter = LineSplitter(1000)
    for _ in range(1000):
        assert fed(splitter, b"x" * 10_000) == []
    assert [len(start) for start in splitter.oversized] == [4096]
    assert repr(splitter) == "<LineSplitter held=0 dropping>"


def test_a_long_line_in_very_many_pieces_takes_linear_time() -> None:
    splitter = LineSplitter(1 << 30)
    for _ in range(200_000):
        assert fed(splitter, b"x" * 20) == []
    assert fed(splitter, b"\n") == [b"x" * 4_000_000]


def test_a_cr_cut_from_its_lf_is_still_a_line_end() -> None:
    assert fed(LineSplitter(100), b"one\r", b"\ntwo\r", b"x\n") == [b"one", b"two\rx"]


def test_its_repr_shows_its_state() -> None:
    splitter = LineSplitter(100)
    assert fed(splitter, b"abc") == []
    assert repr(splitter) == "<LineSplitter held=3>"
