"""The arrival times of requests at a fixed rate, independent of earlier requests.

Arrivals are random, as from many independent clients, and each has its own time. The event loop's timers have a
resolution of a millisecond, which would bunch requests and measure the resulting queue. The gaps are the same in every
run, apart from the rate.
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
_MONOTONIC: Final = 1  # CLOCK_MONOTONIC, the clock of `perf_counter`
_NON_BLOCKING: Final = 0o4000  # TFD_NONBLOCK
_ABSOLUTE: Final = 1  # TFD_TIMER_ABSTIME


class Sender(Protocol):
    """Sends one request at a time."""

    def send(self, due: int) -> None:
        """Send a request with this due time, in nanoseconds of `perf_counter`."""

    def end(self) -> None:
        """Stop: no more requests follow."""


class Arrivals:
    """Assigns due requests to free senders. A request without a free sender waits and counts as late."""

    def __init__(
        self, rate: float, until: int, make_timer: "Callable[[Callable[[], None]], Timer] | None" = None
    ) -> None:
        self._rate = rate
        self._until = until
        self._random = random.Random(_SEED)  # not used for secrets
        self._free: deque[Sender] = deque()
        self._late: deque[int] = deque()
        self._next = time.perf_counter_ns()
        self._is_over = False
        self._timer = (make_timer or timer)(self._ring)
        self._ring()

    def free(self, sender: Sender) -> None:
        """Register a free sender."""
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
    """A timer that fires once, at a time in nanoseconds of `perf_counter`."""

    def ring_at(self, when: int) -> None: ...

    def close(self) -> None: ...


def timer(ring: Callable[[], None]) -> Timer:
    """The most exact timer of the platform."""
    return KernelTimer(ring) if sys.platform == "linux" else LoopTimer(ring)


class KernelTimer:
    """A timer descriptor, exact to the microsecond."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_MONOTONIC, _NON_BLOCKING)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._times = (ctypes.c_long * 4)()  # interval 0, then the time
        asyncio.get_running_loop().add_reader(self._fd, self._rung)

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
    """The timer of the event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def ring_at(self, when: int) -> None:
        wait = max(0.0, (when - time.perf_counter_ns()) / 1e9)
        asyncio.get_running_loop().call_later(wait, self._ring)

    def close(self) -> None:
        pass
