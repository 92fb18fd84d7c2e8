"""Monitors of one open link: the probe, which asks whether its backend still responds, and the idle monitor.

Neither closes a link nor decides a state; they report what they find. Both end with the link.
"""

from collections.abc import Callable
from typing import Final

from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendError, RemoteError
from mcp_manifold.wire import capability_names
from mcp_manifold.wire.protocol import METHOD_NOT_FOUND

SILENCES: Final = 3
"""Unanswered probes in a row that make a backend unresponsive: one may be a pause, or a lost packet."""
PING_WAIT: Final = 5.0
"""Seconds a probe waits for its response, or the probe interval if that is shorter."""
_MIN_PAUSE: Final = 0.01
"""The shortest pause in seconds: the loop's timers are inexact, and must not make a probe spin."""
IDLE_LOOK_EVERY: Final = 5.0
"""Seconds between two looks at an idle link at the latest, because the settings may change."""


class Probe:
    """Sends a request whenever nothing was received from the backend for `every` seconds.

    Any response counts, errors included; but not a refusal by an HTTP status, which a gateway may give. A server that
    never answered a ping is then asked for its tools: some do not answer methods they do not know.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        *,
        every: float,
        on_silence: Callable[[str], None],
        on_answer: Callable[[], None],
    ) -> None:
        self._link = link
        self._clock = clock
        self._every = every
        self._on_silence = on_silence
        self._on_answer = on_answer
        self._unanswered = 0
        self._answers_pings = False

    def __repr__(self) -> str:
        return f"<Probe {self._link.backend} every={self._every:g}s unanswered={self._unanswered}>"

    async def run(self) -> None:
        """Probe until the link ends."""
        while await self._paused():
            is_answered = self._was_heard() or await self._ask()
            if not self._link.ended.done():
                self._count(is_answered=is_answered)

    def _count(self, *, is_answered: bool) -> None:
        before, self._unanswered = self._unanswered, 0 if is_answered else self._unanswered + 1
        if is_answered and before >= SILENCES:
            self._on_answer()
        elif self._unanswered == SILENCES:
            self._on_silence(f"no answer to {SILENCES} probes, the last after {min(self._every, PING_WAIT):g} s")

    async def _paused(self) -> bool:
        """Wait until the next probe is due; False once the link has ended."""
        left = self._every
        if not self._unanswered:
            left = max(_MIN_PAUSE, self._link.heard + self._every - self._clock.now())
        await self._clock.wait(self._link.ended, seconds=left)
        return not self._link.ended.done()

    def _was_heard(self) -> bool:
        return self._clock.now() - self._link.heard < self._every

    async def _ask(self) -> bool:
        link, asked, before, is_answered = self._link, self._clock.now(), self._link.calls, True
        method = "ping" if link.era == "handshake" else "server/discover"
        if self._unanswered and not self._answers_pings and "tools" in capability_names(link.capabilities):
            method = "tools/list" if link.era == "handshake" else method
        try:
            await link.request(method, {}, timeout=min(self._every, PING_WAIT))
        except RemoteError as exc:
            is_answered = exc.code == METHOD_NOT_FOUND or link.heard >= asked
        except BackendError:
            is_answered = link.calls > before  # such as `null` in place of a result
        self._answers_pings = self._answers_pings or (is_answered and method == "ping")
        return is_answered


class IdleMonitor:
    """Calls `on_idle` once a backend was unused for `after` seconds.

    Args:
        after: seconds of idleness that are enough; 0 for never.
        used: the time of the last use.
        is_in_use: whether it is in use now.
    """

    def __init__(
        self,
        link: Link,
        clock: Clock,
        *,
        after: Callable[[], float],
        used: Callable[[], float],
        is_in_use: Callable[[], bool],
        on_idle: Callable[[], None],
    ) -> None:
        self._link = link
        self._clock = clock
        self._after = after
        self._used = used
        self._is_in_use = is_in_use
        self._on_idle = on_idle
        self._since = clock.now()

    def __repr__(self) -> str:
        return f"<IdleMonitor {self._link.backend} after={self._after():g}s>"

    async def run(self) -> None:
        """Watch until the link ends, or until the backend was idle for long enough."""
        while not self._link.ended.done():
            left = self._left()
            if left <= 0:
                self._on_idle()  # in this turn, so that no call can start in between
                return
            await self._clock.wait(self._link.ended, seconds=min(left, IDLE_LOOK_EVERY))

    def _left(self) -> float:
        """Seconds until the link is idle for long enough, if it stays unused."""
        after, now = self._after(), self._clock.now()
        if self._is_in_use():
            self._since = now
        if not after:
            return IDLE_LOOK_EVERY
        return max(self._since, self._used()) + after - now
