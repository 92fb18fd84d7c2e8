"""When requests are due that come at a rate, whatever becomes of the ones before. Knows workers, and no transport.

They come at random, as from many clients that know nothing of each other, and each at its own time: the loop's timers
count milliseconds, so with them all requests of a millisecond would come at once, and the queue that makes would be
measured as if it were the peer's. The gaps are the same in every run, but for the rate.
"""

import asyncio
import ctypes
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

_SEED: Final = 1
_MONOTONIC: Final = 1
_NON_BLOCKING: Final = 0o4000
_ABSOLUTE: Final = 1
"""CLOCK_MONOTONIC, which is what `perf_counter` reads, TFD_NONBLOCK and TFD_TIMER_ABSTIME."""


class Sender(Protocol):
    """Who sends one request after the other."""

    def send(self, due: int) -> None:
        """Send one that was due then, in nanoseconds of `perf_counter`."""

    def end(self) -> None:
        """There will be no more."""


class Arrivals:
    """Hands out what is due to senders that are free; what finds none waits, and is late."""

    def __init__(self, rate: float, until: int) -> None:
        self._rate = rate
        self._until = until
        self._random = random.Random(_SEED)  # no secret
        self._free: deque[Sender] = deque()
        self._late: deque[int] = deque()
        self._next = time.perf_counter_ns()
        self._is_over = False
        self._timer = timer(self._ring)
        self._ring()

    def __repr__(self) -> str:
        return f"<Arrivals {self._rate:g} a second, {len(self._late)} late>"

    def free(self, sender: Sender) -> None:
        """A sender has nothing to do."""
        if self._late:
            sender.send(self._late.popleft())
        elif self._is_over:
            sender.end()
        else:
            self._free.append(sender)

    def _ring(self) -> None:
        now = time.perf_counter_ns()
        while self._next <= now and self._next < self._until:
            if self._free:
                self._free.popleft().send(self._next)
            else:
                self._late.append(self._next)
            self._next += int(self._random.expovariate(self._rate) * 1e9)
        if self._next < self._until:
            self._timer.ring_at(self._next)
            return
        self._is_over = True
        self._timer.close()
        while self._free:
            self._free.popleft().end()


class Timer(Protocol):
    """Rings once, at a time in nanoseconds of `perf_counter`."""

    def ring_at(self, when: int) -> None: ...

    def close(self) -> None: ...


def timer(ring: Callable[[], None]) -> Timer:
    """The most exact there is."""
    return KernelTimer(ring) if sys.platform == "linux" else LoopTimer(ring)


class KernelTimer:
    """A descriptor that becomes readable to the microsecond."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_MONOTONIC, _NON_BLOCKING)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._times = (ctypes.c_long * 4)()  # an interval of nothing, then when
        asyncio.get_running_loop().add_reader(self._fd, self._rung)

    def __repr__(self) -> str:
        return f"<KernelTimer {self._fd}>"

    def ring_at(self, when: int) -> None:
        self._times[2], self._times[3] = divmod(when, 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, self._times, None)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _rung(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._ring()


class LoopTimer:
    """The loop's own."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def __repr__(self) -> str:
        return "<LoopTimer>"

    def ring_at(self, when: int) -> None:
        wait = max(0.0, (when - time.perf_counter_ns()) / 1e9)
        asyncio.get_running_loop().call_later(wait, self._ring)

    def close(self) -> None:
        pass
