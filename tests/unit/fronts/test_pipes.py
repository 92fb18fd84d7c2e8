"""This process's own descriptors."""

import subprocess
import sys

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
