"""Runs one coroutine as the program: the event loop, and what a signal does. Knows no command."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from mcp_manifold.cli.exits import Signalled

T = TypeVar("T")

_ENDING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of `main`, on uvloop where there is one. Whatever ends the program, `main` is left in order.

    Raises:
        Signalled: SIGTERM or SIGHUP came.
        KeyboardInterrupt: SIGINT came.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_until_signalled(main))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows, and --help should not pay for it
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _until_signalled(main: Coroutine[Any, Any, T]) -> T:
    """Without this SIGTERM would end us on the spot, and leave the servers we started behind."""
    caught: list[int] = []
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end(number: int) -> None:
        caught.append(number)
        if task is not None:
            task.cancel()

    for number in _ENDING:
        with suppress(NotImplementedError):  # Windows: its default action stands
            loop.add_signal_handler(number, end, number)
    try:
        return await main
    except asyncio.CancelledError:
        if caught:
            raise Signalled(caught[0]) from None
        raise
