"""Has glibc keep large blocks, so that the bench's own processes are not what large messages wait for.

Programs that are measured decide for themselves; the limits of what a hop can cost run as they are.
"""

import ctypes
from typing import Final

_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_KEPT: Final = 32 << 20


def keep_large_blocks() -> None:
    """Without effect where the C library is not glibc."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_MMAP_THRESHOLD, _KEPT)
        option(_TRIM_THRESHOLD, _KEPT)
