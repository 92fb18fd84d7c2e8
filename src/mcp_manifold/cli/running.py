"""Runs one coroutine as the program: the event loop, and what a signal does. Knows no command."""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from mcp_manifold.backends.process.orphans import Reaper, sweep
from mcp_manifold.cli.allocator import keep_blocks
from mcp_manifold.cli.exits import Signalled
from mcp_manifold.clock import LoopClock

T = TypeVar("T")

_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_HANGUP: Final = getattr(signal, "SIGHUP", None)


def run(
    main: Coroutine[Any, Any, T],
    *,
    hangup: Callable[[], None] | None = None,
    stop: Callable[[], None] | None = None,
) -> T:
    """The result of `main`, on uvloop where there is one. Whatever ends the program, `main` is left in order.

    Args:
        hangup: what SIGHUP does, instead of ending the program; but if it comes because the terminal it was started
            from was closed, it ends the program nevertheless.
        stop: what SIGTERM and SIGINT do, each time they come, instead of ending the program; `main` ends by it.

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
        import uvloop  # noqa: PLC0415 - not there on Windows, and --help should not pay for it
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _tended(main: Coroutine[Any, Any, T]) -> T:
    """`main`, without what a predecessor that was killed left behind, and with zombies reaped if that falls to us."""
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
    """Without this SIGTERM would end us on the spot, and leave the servers we started behind."""
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
        with suppress(NotImplementedError):  # Windows: its default action stands
            loop.add_signal_handler(number, end, number)
    if stop is not None:
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt, which ends the run as well
            loop.add_signal_handler(signal.SIGTERM, stop)
            loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await main
    except asyncio.CancelledError:
        if caught:
            raise Signalled(caught[0]) from None
        raise


def _has_terminal() -> bool:
    """Whether there is a terminal that signals of its own come from."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
