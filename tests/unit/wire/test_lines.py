"""Cutting a byte stream into lines: equal to a split, however the stream is cut; lines over the limit are dropped."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.wire.lines import LineCutter

STREAMS = st.lists(st.sampled_from([b"a", b"bb", b"\r", b"\n", b"\r\n", b"", b"xyz"]), max_size=60)


def fed(lines: LineCutter, *pieces: bytes) -> list[bytes]:
    return [line for piece in pieces for line in lines.feed(piece)]


@given(pieces=STREAMS)
def test_lines_are_those_of_a_split_however_the_stream_is_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces).split(b"\n")[:-1]
    expected = [line[:-1] if line.endswith(b"\r") else line for line in whole]
    assert fed(LineCutter(10**6), *pieces) == expected


@given(pieces=STREAMS, limit=st.integers(1, 8))
def test_a_line_over_the_limit_is_dropped_and_reported_once(pieces: list[bytes], limit: int) -> None:
    *whole, rest = b"".join(pieces).split(b"\n")
    cutter = LineCutter(limit)
    found = fed(cutter, *pieces)
    expected = [line for line in whole if len(line) <= limit]
    assert found == [line[:-1] if line.endswith(b"\r") else line for line in expected]
    assert len(cutter.oversized) == sum(len(line) > limit for line in [*whole, rest])
    assert all(0 < len(start) <= 4096 for start in cutter.oversized)


def test_of_an_endless_line_only_its_beginning_is_kept() -> None:
    cutter = LineCutter(1000)
    for _ in range(1000):
        assert fed(cutter, b"x" * 10_000) == []
    assert [len(start) for start in cutter.oversized] == [4096]
    assert repr(cutter) == "<LineCutter held=0 skipping>"


def test_a_long_line_in_very_many_pieces_takes_linear_time() -> None:
    cutter = LineCutter(1 << 30)
    for _ in range(50_000):
        assert fed(cutter, b"x" * 20) == []
    assert fed(cutter, b"\n") == [b"x" * 1_000_000]


@given(pieces=STREAMS, limit=st.integers(1, 8))
def test_a_line_without_an_end_is_the_last_one_of_the_stream(pieces: list[bytes], limit: int) -> None:
    stream = b"".join(pieces)
    cutter = LineCutter(limit)
    found = fed(cutter, *pieces) + cutter.finish()
    lines = stream.split(b"\n") if stream and not stream.endswith(b"\n") else stream.split(b"\n")[:-1]
    assert found == [line.removesuffix(b"\r") for line in lines if len(line) <= limit]
    assert len(cutter.take_oversized()) == sum(len(line) > limit for line in lines)
    assert (cutter.oversized, cutter.held, cutter.finish()) == ([], 0, [])


def test_a_line_can_be_dropped_before_its_end() -> None:
    lines = LineCutter(1000)
    assert list(lines.feed(b'{"id":7,')) == []
    assert repr(lines) == "<LineCutter held=8>"
    assert lines.skip() == b'{"id":7,'
    assert list(lines.feed(b'"more"}\n{"id":8}\n')) == [b'{"id":8}']
    assert (lines.held, lines.oversized) == (0, [])
