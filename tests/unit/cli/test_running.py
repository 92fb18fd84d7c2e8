"""Settings of the memory allocator."""

import platform
import resource
import sys

import pytest

from mcp_manifold.cli.running import keep_blocks


def _faults(work: bytes, times: int) -> int:
    """How many fresh pages it took to copy something that often."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        bytes(bytearray(work))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_of_large_messages_is_reused() -> None:
    keep_blocks()
    work = bytes(8 << 20)
    _faults(work, 2)
    assert _faults(work, 10) < 10 * len(work) / resource.getpagesize() / 2
