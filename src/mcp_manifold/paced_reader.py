"""Bounded reading: however much a peer sends, each turn of the event loop handles a small portion. Knows no message.

A peer that sends as fast as it can would otherwise fill every turn, and delay all other connections. What a portion
costs depends on its lines more than on its bytes: a message, an event and a head take at least one line each.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from mcp_manifold.clock import Clock

SMALL_PORTION: Final = 1024
"""Bytes of input that are always one portion."""
LARGEST_PORTION: Final = 262_144
"""Bytes of the largest portion: more than one read of the event loop, so that a long line is not split in vain."""
MANY_LINES: Final = 32
"""Line ends in a portion that is not small."""

Take = Callable[[bytes], float | None]
"""Handles a portion. Returns None when done; otherwise the seconds until it is called again, without input."""


def line_ends(data: bytes) -> int:
    """The number of CR and LF in `data`."""
    return data.count(b"\n") + data.count(b"\r")


def has_many_lines(data: bytes) -> bool:
    """Whether `data` has more than `MANY_LINES` line ends. Searches for them, which is much faster than counting."""
    left = MANY_LINES
    for mark in (b"\n", b"\r"):
        at = data.find(mark)
        while at >= 0:
            left -= 1
            if left < 0:
                return True
            at = data.find(mark, at + 1)
    return False


def portions(data: bytes) -> Iterator[bytes]:
    """`data` cut into portions, each small enough for one turn of the event loop."""
    at, size = 0, LARGEST_PORTION
    while at < len(data):
        portion = data[at : at + size]
        while size > SMALL_PORTION and has_many_lines(portion):
            size //= 2
            portion = portion[:size]
        yield portion
        at += len(portion)
        size = min(2 * size, LARGEST_PORTION)


class Pacer:
    """Shares the turns of the event loop among the readers that have input left: one portion a turn, in rotation.

    Args:
        call_soon: the event loop's.
    """

    __slots__ = ("_call_soon", "_is_due", "_waiting", "clock")

    def __init__(self, clock: Clock, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self.clock = clock
        self._call_soon = call_soon
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def __repr__(self) -> str:
        return f"<Pacer waiting={len(self._waiting)}>"

    @property
    def is_busy(self) -> bool:
        """Whether a reader waits for its turn."""
        return bool(self._waiting)

    def join(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once, in a later turn."""
        self._waiting.append(go_on)
        self._continue()

    def _continue(self) -> None:
        if self._waiting and not self._is_due:
            self._is_due = True
            self._call_soon(self._serve)

    def _serve(self) -> None:
        self._is_due = False
        go_on = self._waiting.popleft()
        self._continue()
        go_on()


class PacedReader:
    """Passes the input of one connection to `take`, in order. Pauses reading while input waits or is held."""

    __slots__ = (
        "_input", "_is_due", "_is_paused", "_is_stopped", "_is_unfinished", "_pacer", "_take", "_transport",
        "is_behind", "is_held",
    )  # fmt: skip

    def __init__(self, take: Take, pacer: Pacer, transport: asyncio.ReadTransport) -> None:
        self._take = take
        self._pacer = pacer
        self._transport = transport
        self._input: deque[bytes] = deque()
        """Portions that wait."""
        self._is_paused = self._is_stopped = False
        self._is_due = False
        """Whether a turn is arranged for."""
        self._is_unfinished = False
        """Whether `take` is not done with the last portion."""
        self.is_held = False
        """Whether the owner wants no input for now."""
        self.is_behind = False
        """Whether input waits. If not, the owner may handle small input itself."""

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "behind" if self.is_behind else "reading"
        return f"<PacedReader {state} waiting={len(self._input)}>"

    def feed(self, data: bytes) -> None:
        """Handle input. Its first portion is handled at once, unless earlier input waits."""
        if self._is_stopped:
            return
        self._input.extend(portions(data))
        if self.is_behind:
            return
        if self._pacer.is_busy:
            self.wait(0)
        else:
            self._go_on()

    def wait(self, seconds: float, *, is_unfinished: bool = False) -> None:
        """Pause for `seconds`, and at least until the next turn; then call `take` again if input is left."""
        if self._is_stopped:
            return
        self.is_behind = self._is_due = True
        self._is_unfinished = is_unfinished
        self._pause()
        if seconds:
            self._pacer.clock.call_later(seconds, self._pacer.join, self._go_on)
        else:
            self._pacer.join(self._go_on)

    def hold(self) -> None:
        """Handle no input until `release`."""
        self.is_held = self.is_behind = True
        self._pause()

    def release(self) -> None:
        """Handle input again after `hold`."""
        was_held, self.is_held = self.is_held, False
        if self._is_due or not was_held:
            return
        if self._input:
            self.wait(0)
        else:
            self._resume()

    def stop(self) -> None:
        """Read and handle no more input."""
        self._is_stopped = True
        self._take = _drop  # breaks a reference cycle
        self._input.clear()
        self._pause()

    def _go_on(self) -> None:
        self._is_due = False
        if self._is_stopped or self.is_held:
            return
        if self._is_unfinished or self._input:
            portion = b"" if self._is_unfinished else self._input.popleft()
            self.is_behind = bool(self._input)
            seconds = self._take(portion)
            if self.is_behind or seconds is not None or len(portion) == LARGEST_PORTION:
                self.wait(seconds or 0, is_unfinished=seconds is not None)
                return
        self._resume()

    def _resume(self) -> None:
        self.is_behind = False
        if self._is_paused and not (self._is_stopped or self._transport.is_closing()):
            self._is_paused = False
            self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()


def _drop(portion: bytes) -> None:
    """Handle nothing."""
