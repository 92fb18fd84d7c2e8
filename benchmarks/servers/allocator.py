"""Lets glibc keep large freed blocks, so that the benchmark's own processes do not slow large messages.

Measured programs keep their own settings; the lower bounds run unchanged.
"""

import ctypes
from typing import Final

_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_KEPT: Final = 32 << 20


def keep_large_blocks() -> None:
    """Does nothing with a C library other than glibc."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_MMAP_THRESHOLD, _KEPT)
        option(_TRIM_THRESHOLD, _KEPT)
