"""Reloading the configuration: follows its files, reads them again, puts the settings in force, reports the outcome.

A change is recognised by comparing the files themselves (`config.stamps`). Notifications of the file system only say
when to compare, and some file systems send none, so the files are also compared at intervals.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio.to_thread

from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import READ_TIMEOUT, Reloaded, Settings, Stamps, directories, given_up, stamps
from mcp_manifold.errors import ConfigError

logger = logging.getLogger(__name__)

RETRY_AFTER: Final = 0.5
"""Seconds before an invalid file is read again: editors write in several steps."""
COMPARE_EVERY: Final = 2.0
"""Seconds between comparisons when the file system reports nothing."""
WATCH_END_TIMEOUT: Final = 2.0
"""Seconds to wait for the watching task to end; it checks every `_QUIET` milliseconds."""
_QUIET: Final = 100
"""Milliseconds without a further change before a change is reported."""
_LONGEST: Final = 1000
"""Milliseconds after which a change is reported in any case."""

ReloadCallback = Callable[[Reloaded], None]


class Reloader:
    """Reads a configuration again and puts it in force: one reload at a time, on request or when a file changes.

    Args:
        current: returns the settings in force.
        apply: puts settings in force; raises ConfigError when they cannot be used.
        begin_read: begins to read the configuration in a thread; None when it did not come from a file.
        file: the configuration file, for error messages.
        seen: the files as they were when `current` was read.
    """

    def __init__(
        self,
        current: Callable[[], Settings],
        apply: Callable[[Settings], Reloaded],
        begin_read: Callable[[], Future[Settings]] | None = None,
        *,
        file: Path | None = None,
        seen: Stamps | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.last: Reloaded | None = None
        """The outcome of the last reload; None before the first."""
        self._current = current
        self._apply = apply
        self._begin_read = begin_read
        self._reading: Future[Settings] | None = None
        self._file = file
        self._seen: Stamps = seen or {}
        self._given_clock = clock
        self._turn = asyncio.Lock()
        self._callbacks: list[ReloadCallback] = []
        self._requests: list[ReloadCallback] = []
        self._woken = asyncio.Event()
        self._is_following = False

    def __repr__(self) -> str:
        return f"<Reloader {self._file or 'no file'} requests={len(self._requests)} last={self.last}>"

    @property
    def _clock(self) -> Clock:
        """The given clock, else the running loop's: a Manifold is created before its loop runs."""
        return self._given_clock or LoopClock()

    @property
    def health(self) -> dict[str, object]:
        """The part of `/health` about the configuration: why the last reload failed; empty if it did not."""
        return {"configuration": {"error": self.last.error}} if self.last is not None and self.last.error else {}

    def on_reload(self, callback: ReloadCallback) -> None:
        """Call `callback` after each reload, successful or not."""
        self._callbacks.append(callback)

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Put `settings` in force, or what the files contain now, and report the outcome.

        Raises:
            ConfigError: they cannot be used; the old ones stay in force.
        """
        async with self._turn:
            try:
                reloaded = self._apply(await self._read_files() if settings is None else settings)
            except ConfigError as exc:
                self._report(Reloaded(error=str(exc)))
                raise
            self._report(reloaded)
            return reloaded

    def request(self, on_outcome: ReloadCallback) -> None:
        """Reload soon and pass the outcome to `on_outcome`. A request during a reload is part of the next one."""
        if not self._is_following:
            on_outcome(Reloaded(error="nothing is being served from a file, so there is nothing to reload"))
            return
        self._requests.append(on_outcome)
        self._woken.set()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the files, if there are any, and answer requests while the context lasts."""
        if self._begin_read is None:
            yield
            return
        self._is_following = True
        self._woken = asyncio.Event()  # bound to this event loop
        self._woken.set()  # the files may have changed since they were read
        task = asyncio.create_task(self._follow(), name="reloading")
        try:
            yield
        finally:
            self._is_following = False
            task.cancel()
            await self._clock.wait(task, seconds=2 * WATCH_END_TIMEOUT)

    async def _follow(self) -> None:
        while True:
            settings = self._current()
            is_watched = settings.manifold.watch
            where = await anyio.to_thread.run_sync(directories, settings.files) if is_watched else frozenset[str]()
            async with _watching(where, self._woken.set, self._clock):
                while await self._is_watching_right(settings, where):
                    await self._woken.wait()
                    self._woken.clear()
                    await self._reload_if_due()

    async def _is_watching_right(self, settings: Settings, where: frozenset[str]) -> bool:
        """Whether the settings in force still ask for these directories to be watched."""
        now = self._current()
        if now.manifold.watch is not settings.manifold.watch:
            return False
        return not where or where == await anyio.to_thread.run_sync(directories, now.files)

    async def _reload_if_due(self) -> None:
        requests, self._requests = self._requests, []
        is_watched = self._current().manifold.watch
        if not requests and not (is_watched and await _stamps(self._seen) != self._seen):
            return
        outcome = await self._reload_patiently()
        for on_outcome in requests:
            on_outcome(outcome)

    async def _reload_patiently(self) -> Reloaded:
        """Reload; an invalid file is read a second time after `RETRY_AFTER`, because it may be half written."""
        before = await _stamps(self._current().files)
        settings = await self._complete_settings()
        if settings is None:
            self._woken.clear()
            with suppress(TimeoutError):
                async with self._clock.timeout(RETRY_AFTER):
                    await self._woken.wait()
            self._woken.set()  # whatever woke it is compared again afterwards
            before = await _stamps(self._current().files)
        try:
            outcome = await self.reload(settings)
        except ConfigError as exc:
            outcome = Reloaded(error=str(exc))
        except Exception as exc:  # the task's boundary: a bug must not end serving, nor prevent the next reload
            logger.exception("reload failed")
            outcome = Reloaded(error=f"internal error: {type(exc).__name__}")
        fresh = await _stamps(self._current().files)
        self._seen = {file: before.get(file, stamp) for file, stamp in fresh.items()}
        return outcome

    async def _complete_settings(self) -> Settings | None:
        """Read the files; returns None if they are invalid, or if a reload would make another server unusable."""
        try:
            found = await self._read_files()
        except ConfigError:
            return None
        known = {server.name for server in self._current().broken}
        return found if {server.name for server in found.broken} <= known else None

    async def _read_files(self) -> Settings:
        if self._begin_read is None:
            raise ConfigError("the configuration did not come from a file, so it cannot be read again")
        try:
            async with self._clock.timeout(READ_TIMEOUT):
                if self._reading is not None and not self._reading.done():
                    await asyncio.wait({asyncio.wrap_future(self._reading)})  # at most one thread, even a stuck one
                self._reading = self._begin_read()
                return await asyncio.wrap_future(self._reading)
        except TimeoutError:
            raise given_up(self._file, READ_TIMEOUT) from None

    def _report(self, reloaded: Reloaded) -> None:
        before, self.last = self.last, reloaded
        if reloaded.error:  # logged once, however often the same invalid file is read
            is_news = before is None or before.error != reloaded.error
            for line in str(reloaded).splitlines():  # one for each problem of the file
                logger.log(logging.WARNING if is_news else logging.DEBUG, "%s", line)
        else:
            logger.info("%s", reloaded)
        for problem in reloaded.problems:
            logger.warning("%s", problem)
        for callback in self._callbacks:  # through the loop: an exception in a callback must not end the reload
            asyncio.get_running_loop().call_soon(callback, reloaded)


async def _stamps(files: Iterable[str]) -> Stamps:
    return await anyio.to_thread.run_sync(stamps, tuple(files))


@asynccontextmanager
async def _watching(where: frozenset[str], wake: Callable[[], None], clock: Clock) -> AsyncIterator[None]:
    """Call `wake` whenever something may have changed in these directories."""
    if not where:
        yield
        return
    stop = asyncio.Event()
    task = asyncio.create_task(_watch(where, wake, stop, clock), name="watching files")
    try:
        yield
    finally:
        stop.set()
        await clock.wait(task, seconds=WATCH_END_TIMEOUT)
        task.cancel()


async def _watch(where: frozenset[str], wake: Callable[[], None], stop: asyncio.Event, clock: Clock) -> None:
    import watchfiles  # noqa: PLC0415 - needed only where files are watched

    try:
        async for _ in watchfiles.awatch(
            *sorted(where),
            watch_filter=None,
            debounce=_LONGEST,
            step=_QUIET,
            stop_event=stop,
            rust_timeout=round(COMPARE_EVERY * 1000),
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
        ):
            wake()
    except (OSError, RuntimeError) as exc:  # the system's watches are used up, or a directory has gone
        logger.warning("cannot watch the configuration files, comparing them every %g s: %s", COMPARE_EVERY, exc)
    while not stop.is_set():
        with suppress(TimeoutError):
            async with clock.timeout(COMPARE_EVERY):
                await stop.wait()
        wake()
