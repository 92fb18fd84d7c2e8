"""Asks over one open link whether its backend still answers, at a pace. Opens and ends nothing, decides no state."""

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import BackendError, RemoteError

SILENCES: Final = 3
"""Probes in a row without an answer that make a backend silent: one may be a pause, or a packet lost."""
WAIT: Final = 5.0
"""Seconds an answer to a probe may take, or the interval between two where that is shorter."""
_SLACK: Final = 0.01
"""Seconds a pause lasts at least: the loop's timers are not exact, and must not make this spin."""


class Probe:
    """See the module. Any answer is one, an error or one to a client's call included: then no probe is sent."""

    def __init__(
        self, link: Link, *, every: float, on_silence: Callable[[str], None], on_answer: Callable[[], None]
    ) -> None:
        self._link = link
        self._every = every
        self._on_silence = on_silence
        self._on_answer = on_answer
        self._missed = 0

    def __repr__(self) -> str:
        return f"<Probe {self._link.backend} every={self._every:g}s missed={self._missed}>"

    async def run(self) -> None:
        """Probe until the link is lost."""
        while await self._paused():
            is_answered = self._was_heard() or await self._ask()
            if not self._link.ended.done():
                self._note(is_answered=is_answered)

    def _note(self, *, is_answered: bool) -> None:
        missed, self._missed = self._missed, 0 if is_answered else self._missed + 1
        if is_answered and missed >= SILENCES:
            self._on_answer()
        elif self._missed == SILENCES:
            self._on_silence(f"no answer to {SILENCES} probes, the last after {min(self._every, WAIT):g} s")

    async def _paused(self) -> bool:
        """Wait until the next probe is due; False once there is nothing to probe."""
        left = self._every
        if not self._missed:
            left = max(_SLACK, self._link.heard + self._every - asyncio.get_running_loop().time())
        await asyncio.wait({self._link.ended}, timeout=left)
        return not self._link.ended.done()

    def _was_heard(self) -> bool:
        return asyncio.get_running_loop().time() - self._link.heard < self._every

    async def _ask(self) -> bool:
        method = "ping" if self._link.era == "handshake" else "server/discover"
        try:
            await self._link.request(method, {}, timeout=min(self._every, WAIT))
        except RemoteError:
            return True
        except BackendError:
            return False
        return True
