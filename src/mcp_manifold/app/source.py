"""The source of a Manifold's settings, and the outcome of the last reload. Knows no backend and no front."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import READ_TIMEOUT, Reloaded, Settings, Stamps, given_up
from mcp_manifold.errors import ConfigError

logger = logging.getLogger(__name__)


class Source:
    """Reads the file again, if there is one. Owns the outcome of the last reload. One reload at a time.

    `begin` starts to read in a thread; `seen` is the state of the files when they were read first.
    """

    def __init__(
        self,
        begin: Callable[[], Future[Settings]] | None = None,
        seen: Stamps | None = None,
        *,
        file: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.seen = seen or {}
        self.last: Reloaded | None = None
        """The outcome of the last reload; None before the first."""
        self._begin = begin
        self._reading: Future[Settings] | None = None
        self._file = file
        self._clock = clock
        self._turn = asyncio.Lock()
        self._watchers: list[Callable[[Reloaded], None]] = []

    def __repr__(self) -> str:
        return f"<Source {self._file or 'not a file'} last={self.last}>"

    @property
    def is_file(self) -> bool:
        """Whether there is a file to read again."""
        return self._begin is not None

    @property
    def health(self) -> dict[str, object]:
        """The part of `/health` about the configuration: why the last reload failed; empty if it did not."""
        return {"configuration": {"error": self.last.error}} if self.last is not None and self.last.error else {}

    async def read(self) -> Settings:
        """The configuration in the file now.

        Raises:
            ConfigError: it cannot be used, took too long to read, or did not come from a file.
        """
        if self._begin is None:
            raise ConfigError("the configuration did not come from a file, so there is none to read again")
        clock = self._clock or LoopClock()
        try:
            async with clock.timeout(READ_TIMEOUT):
                if self._reading is not None and not self._reading.done():
                    await asyncio.wait({asyncio.wrap_future(self._reading)})  # at most one thread, even a stuck one
                self._reading = self._begin()
                return await asyncio.wrap_future(self._reading)
        except TimeoutError:
            raise given_up(self._file, READ_TIMEOUT) from None

    async def renew(self, swap: Callable[[Settings], Reloaded], settings: Settings | None) -> Reloaded:
        """Replace the settings by those given, or by those in the file now; returns the outcome.

        Raises:
            ConfigError: the new settings cannot be used; the old ones stay.
        """
        async with self._turn:
            try:
                reloaded = swap(await self.read() if settings is None else settings)
            except ConfigError as exc:
                self._note(Reloaded(error=str(exc)))
                raise
            self._note(reloaded)
            return reloaded

    def on_reload(self, callback: Callable[[Reloaded], None]) -> None:
        """Call `callback` after each reload, also a failed one."""
        self._watchers.append(callback)

    def _note(self, reloaded: Reloaded) -> None:
        before, self.last = self.last, reloaded
        if reloaded.error:  # logged once, however often the same reload is requested
            is_news = before is None or before.error != reloaded.error
            for line in str(reloaded).splitlines():  # one for each problem of the file
                logger.log(logging.WARNING if is_news else logging.DEBUG, "%s", line)
        else:
            logger.info("%s", reloaded)
        for problem in reloaded.problems:
            logger.warning("%s", problem)
        for watcher in self._watchers:  # by the loop, so that one that fails does not end the reload
            asyncio.get_running_loop().call_soon(watcher, reloaded)
