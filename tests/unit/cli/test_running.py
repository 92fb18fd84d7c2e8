"""Settings of the memory allocator and the garbage collector."""

import gc
import platform
import resource
import sys
from collections.abc import Iterator

import pytest

from mcp_manifold.cli.running import YOUNG, keep_blocks, settle_memory


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_permanent_objects_are_excluded_from_collection() -> None:
    settle_memory()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[0] == YOUNG


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
