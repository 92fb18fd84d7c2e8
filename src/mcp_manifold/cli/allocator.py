"""What the program tells its allocator and its garbage collector. Knows nothing of what it holds."""

import ctypes
import gc
import sys
from typing import Final

YOUNG: Final = 20_000
"""Objects made, less those gone, between two collections of the youngest: some 500 calls' worth."""
_OWN_MAPPING: Final = -3
_TRIM: Final = -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h."""
KEPT: Final = 32 << 20
"""Bytes of free memory that are kept for the next message; larger blocks go back to the system at once."""


def keep_blocks() -> None:
    """Have glibc keep the blocks that large messages come in, for the next ones.

    By itself it gives them back each time, and the system clears every page again: most of the time that a result of
    1 MB takes. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_OWN_MAPPING, KEPT)
        option(_TRIM, KEPT)  # always both: to set one ends glibc's own adjusting of the other


def settle_memory() -> None:
    """Have the garbage collector leave alone what is there for good, once everything is started.

    What a program imports and sets up never dies, yet every full collection walks over it; and the young are looked
    at less often, since almost nothing of a call is left to cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
