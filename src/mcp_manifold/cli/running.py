"""Runs a coroutine as the program: event loop, signals, memory allocator and garbage collector."""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from mcp_manifold.backends.process.orphans import Reaper, sweep
from mcp_manifold.cli.exits import Signalled
from mcp_manifold.clock import LoopClock

T = TypeVar("T")

YOUNG: Final = 20_000
"""Net new objects before the garbage collector examines the youngest generation; about 500 calls."""
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
"""Options of glibc's mallopt (malloc.h)."""
_KEPT: Final = 32 << 20
"""Bytes of free memory that glibc keeps for later messages. Larger blocks go back to the system at once."""
_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANGUP: Final = getattr(signal, "SIGHUP", None)


def run(
    main: Coroutine[Any, Any, T],
    *,
    hangup: Callable[[], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> T:
    """Run `main` on uvloop where available, and return its result. A signal cancels `main` and lets it clean up.

    Args:
        hangup: called on SIGHUP, which then does not end the program, unless its terminal was closed.
        stop: called on each SIGTERM and SIGINT, which then do not cancel `main`; it must make `main` return.

    Raises:
        Signalled: SIGTERM or SIGHUP came.
        KeyboardInterrupt: SIGINT came.
    """
    keep_blocks()
    gc.freeze()
    gc.enable()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_tended(_until_signalled(main, hangup, stop)))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - does not exist on Windows
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _tended(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` after ending orphans of killed instances; reaps zombies meanwhile if this process is PID 1."""
    sweep()
    reaper = Reaper(LoopClock())
    reaper.begin()
    try:
        return await main
    finally:
        reaper.end()


async def _until_signalled(
    main: Coroutine[Any, Any, T], hangup: Callable[[], None] | None, stop: Callable[[], None] | None
) -> T:
    """Run `main` with signal handlers. By default SIGTERM would end the process without stopping the servers."""
    caught: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_in_terminal = _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN and _has_terminal()

    def end(number: int) -> None:
        if number == _HANGUP and hangup is not None and not (is_in_terminal and not _has_terminal()):
            hangup()
            return
        caught.append(number)
        if task is not None:
            task.cancel()

    for number in _ENDING:
        with suppress(NotImplementedError):  # Windows: the default action applies
            loop.add_signal_handler(number, end, number)
    if stop is not None:
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt, which ends `main` as well
            loop.add_signal_handler(signal.SIGTERM, stop)
            loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await main
    except asyncio.CancelledError:
        if caught:
            raise Signalled(caught[0]) from None
        raise


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def keep_blocks() -> None:
    """Let glibc keep the memory of large messages for the next ones.

    By default it returns each block to the system, which then clears every page again: most of the time that a result
    of 1 MB takes. Other C libraries keep their defaults.
    """
    if sys.platform != "linux":
        return
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(_MMAP_THRESHOLD, _KEPT)
        option(_TRIM_THRESHOLD, _KEPT)  # always both: setting one switches off glibc's own adjustment of the other


def settle_memory() -> None:
    """Exclude the objects of a started program from garbage collection, and collect the others less often.

    Imported and configured objects never die, yet every full collection would walk over them. Calls leave almost
    nothing to cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
