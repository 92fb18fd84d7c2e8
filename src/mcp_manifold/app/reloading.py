"""Reloads a configuration when its files change, or somebody asks: waits out half-written files, one at a time.

Whether files changed is decided by what they are like, not by what the system tells of their directories: that only
says when to look. It also looks now and then by itself, for some file systems tell nothing. What a configuration asks
for, and how it is put in force, is not known here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

import anyio
import anyio.to_thread
import watchfiles

from mcp_manifold.config import Reloaded, Settings, Stamps, directories, stamps
from mcp_manifold.errors import ConfigError

logger = logging.getLogger(__name__)

RETRY_AFTER: Final = 0.5
"""Seconds after which a file that cannot be read is read once more: editors write in several steps."""
LOOK_EVERY: Final = 2.0
"""Seconds after which the files are looked at even if nothing was told of them."""
STOP_WAIT: Final = 2.0
"""Seconds the end of watching may take; it is seen within `_STEP`."""
_STEP: Final = 100
"""Milliseconds without a further change after which a change is told of."""
_LONGEST: Final = 1000
"""Milliseconds after which it is told of in any case."""

ReloadCallback = Callable[[Reloaded], None]


class Reloadable(Protocol):
    """What is reloaded."""

    @property
    def config(self) -> Settings:
        """The settings in force, but for what cannot change while serving."""
        ...

    async def read(self) -> Settings:
        """The configuration as it is written now; raises ConfigError."""
        ...

    async def reload(self, settings: Settings | None = None) -> Reloaded:
        """Put in force these settings, or those that are written now; raises ConfigError."""
        ...


class Reloading:
    """See the module. Owns its one task, from `start` until `stop`."""

    def __init__(self, manifold: Reloadable, seen: Stamps) -> None:
        self._manifold = manifold
        self._seen = seen
        self._asked: list[ReloadCallback] = []
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Reloading {len(self._seen)} files, {len(self._asked)} asked>"

    def ask(self, told: ReloadCallback) -> None:
        """Reload soon, and say what came of it; whoever asks while one is on its way is part of the next."""
        self._asked.append(told)
        self._woken.set()

    def start(self) -> None:
        """Begin to watch, and to do what is asked."""
        self._woken.set()  # they may have changed since they were read
        self._task = asyncio.create_task(self._run(), name="reloading")

    async def stop(self) -> None:
        """Do nothing more; bounded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=2 * STOP_WAIT)

    async def _run(self) -> None:
        while True:
            settings = self._manifold.config
            is_watched = settings.manifold.watch
            where = await anyio.to_thread.run_sync(directories, settings.files) if is_watched else frozenset[str]()
            async with _watched(where, self._woken.set):
                while await self._is_same(settings, where):
                    await self._woken.wait()
                    self._woken.clear()
                    await self._review()

    async def _is_same(self, settings: Settings, where: frozenset[str]) -> bool:
        """Whether it is still these directories that have to be watched."""
        now = self._manifold.config
        if now.manifold.watch is not settings.manifold.watch:
            return False
        return not where or where == await anyio.to_thread.run_sync(directories, now.files)

    async def _review(self) -> None:
        """Reload if there is a reason to."""
        asked, self._asked = self._asked, []
        is_watched = self._manifold.config.manifold.watch
        if not asked and not (is_watched and await self._look(self._seen) != self._seen):
            return
        outcome = await self._reloaded()
        for told in asked:
            told(outcome)

    async def _reloaded(self) -> Reloaded:
        """Reload; if what is written cannot be used, once more when it had the time to become whole."""
        before = await self._look(self._manifold.config.files)
        settings = await self._whole()
        if settings is None:
            self._woken.clear()
            with anyio.move_on_after(RETRY_AFTER):
                await self._woken.wait()
            self._woken.set()  # whatever woke it is looked at again afterwards
            before = await self._look(self._manifold.config.files)
        try:
            outcome = await self._manifold.reload(settings)
        except ConfigError as exc:
            outcome = Reloaded(error=str(exc))
        except Exception as exc:  # the task's boundary: a fault of ours must not end the serving, nor the next reload
            logger.exception("reloading failed")
            outcome = Reloaded(error=f"internal error: {type(exc).__name__}")
        fresh = await self._look(self._manifold.config.files)
        self._seen = {file: before.get(file, stamp) for file, stamp in fresh.items()}
        return outcome

    async def _whole(self) -> Settings | None:
        """What is written now, unless it, or one more server of it, cannot be used."""
        try:
            found = await self._manifold.read()
        except ConfigError:
            return None
        known = {server.name for server in self._manifold.config.broken}
        return found if {server.name for server in found.broken} <= known else None

    async def _look(self, files: Iterable[str]) -> Mapping[str, object]:
        return await anyio.to_thread.run_sync(stamps, tuple(files))


@asynccontextmanager
async def _watched(where: frozenset[str], wake: Callable[[], None]) -> AsyncIterator[None]:
    """Wakes whenever something may have happened in these directories; without any, never."""
    stop = asyncio.Event()
    task = asyncio.create_task(_watch(where, wake, stop), name="watching files")
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=STOP_WAIT)
        task.cancel()


async def _watch(where: frozenset[str], wake: Callable[[], None], stop: asyncio.Event) -> None:
    if not where:
        return
    try:
        async for _ in watchfiles.awatch(
            *sorted(where),
            watch_filter=None,
            debounce=_LONGEST,
            step=_STEP,
            stop_event=stop,
            rust_timeout=round(LOOK_EVERY * 1000),
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
        ):
            wake()
    except (OSError, RuntimeError) as exc:  # no watches left in this system, a directory gone meanwhile ...
        logger.warning("the files are looked at every %g s, since they cannot be watched: %s", LOOK_EVERY, exc)
    while not stop.is_set():
        with anyio.move_on_after(LOOK_EVERY):
            await stop.wait()
        wake()
