"""Lines from bytes, and this process's own descriptors."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.fronts.pipes import Lines

pieces = st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\r", b"\n")), max_size=20)


@given(pieces, st.integers(min_value=0, max_value=20))
def test_lines_are_the_same_wherever_the_bytes_are_cut(pieces: list[bytes], limit: int) -> None:
    lines = Lines(limit)
    found = [line for piece in pieces for line in lines.feed(piece)] + list(lines.finish())
    *whole, last = b"".join(pieces).split(b"\n")
    expected = [line if len(line) <= limit else None for line in whole + ([last] if last else [])]
    assert found == expected


def test_an_endless_line_is_not_kept() -> None:
    lines = Lines(1000)
    for _ in range(100):
        assert list(lines.feed(b"x" * 1000)) == []
    assert repr(lines) == "<Lines held=0 skipping>"
    assert list(lines.feed(b"\n{}\n")) == [None, b"{}"]


SERVING = """
import os, sys
from mcp_manifold.fronts.pipes import claimed_stdio
with claimed_stdio() as (source, target):
    print("a stray print")
    os.write(1, b"a stray write\\n")
    assert os.read(0, 10) == b""
    os.write(target, b"got " + os.read(source, 100))
    os.close(source), os.close(target)
print("after")
"""


def test_a_stray_print_goes_to_stderr_while_stdio_is_claimed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVING], input=b"hello\n", capture_output=True, timeout=30, check=True
    )
    assert done.stdout == b"got hello\nafter\n"
    assert sorted(done.stderr.splitlines()) == [b"a stray print", b"a stray write"]
