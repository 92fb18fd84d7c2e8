"""Where a Manifold's settings come from, and what came of reading them again. Knows no backend and no front."""

import asyncio
import logging
from collections.abc import Callable

import anyio.to_thread

from mcp_manifold.config import Reloaded, Settings, Stamps
from mcp_manifold.errors import ConfigError

logger = logging.getLogger(__name__)


class Source:
    """Owns the way back to the file, if there is one, and the outcome of the last reload. One reload at a time."""

    def __init__(self, read: Callable[[], Settings] | None = None, seen: Stamps | None = None) -> None:
        self.seen = seen or {}
        self.last: Reloaded | None = None
        """What came of the last reload; None before the first."""
        self._read = read
        self._turn = asyncio.Lock()
        self._watchers: list[Callable[[Reloaded], None]] = []

    def __repr__(self) -> str:
        return f"<Source {'a file' if self._read else 'not a file'} last={self.last}>"

    @property
    def is_file(self) -> bool:
        """Whether there is something to read again."""
        return self._read is not None

    async def read(self) -> Settings:
        """The configuration as it is written now.

        Raises:
            ConfigError: it cannot be used, or did not come from a file.
        """
        if self._read is None:
            raise ConfigError("the configuration did not come from a file, so there is none to read again")
        return await anyio.to_thread.run_sync(self._read)

    async def renew(self, swap: Callable[[Settings], Reloaded], settings: Settings | None) -> Reloaded:
        """Swap the settings, those given or those of the file as it is now, and tell what came of it.

        Raises:
            ConfigError: they cannot be used; the old ones stay.
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
        """Call `callback` after each reload, well or not."""
        self._watchers.append(callback)

    def _note(self, reloaded: Reloaded) -> None:
        before, self.last = self.last, reloaded
        if reloaded.error:  # said once, however often somebody asks for what cannot be
            is_news = before is None or before.error != reloaded.error
            logger.log(logging.WARNING if is_news else logging.DEBUG, "%s", reloaded)
        else:
            logger.info("%s", reloaded)
        for problem in reloaded.problems:
            logger.warning("%s", problem)
        for watcher in self._watchers:  # by the loop, so that one that fails does not end the reload
            asyncio.get_running_loop().call_soon(watcher, reloaded)
