"""The fleet: all backends of a configuration, each in its own task, none of which can end another."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendUnavailable


@dataclass(slots=True, eq=False)
class _Running:
    """The task of one backend: its cancel scope, and whether it has ended."""

    backend: Backend
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)


class Fleet(Mapping[str, Backend]):
    """All backends by name, in configuration order. The composition root enters `run` once.

    Theory. A removed or replaced backend leaves the mapping at once. It runs in the background until its calls end, or
    the drain time is over. Only then its successor starts, because a server may not tolerate two of its processes.
    """

    def __init__(self, servers: Sequence[ServerSettings], context: BackendContext) -> None:
        self._clock = context.clock
        self.backends: Mapping[str, Backend] = {
            server.name: _new_backend(server, context) for server in servers if not server.disabled
        }
        self._running: dict[str, _Running] = {}
        self._group: TaskGroup | None = None

    def __repr__(self) -> str:
        return f"<Fleet {' '.join(repr(backend) for backend in self.backends.values())}>"

    def __getitem__(self, name: str) -> Backend:
        return self.backends[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.backends)

    def __len__(self) -> int:
        return len(self.backends)

    def find(self, name: str) -> Backend:
        """The backend of that name.

        Raises:
            BackendUnavailable: it is no longer configured.
        """
        backend = self.backends.get(name)
        if backend is None:
            raise BackendUnavailable(name, "is no longer configured")
        return backend

    def release(self, session: str) -> None:
        """Close the links of a client session that ended."""
        for backend in self.backends.values():
            backend.release(session)

    def apply(
        self, servers: Sequence[ServerSettings], context: BackendContext, *, renewed: Collection[str], drain: float
    ) -> None:
        """Switch to these servers; stop the backends of all others.

        Args:
            renewed: servers that get a new backend.
            drain: seconds that calls in flight get before their backend is stopped.
        """
        old, now = self.backends, dict[str, Backend]()
        for server in servers:
            if server.disabled:
                continue
            backend = None if server.name in renewed else old.get(server.name)
            if backend is None:
                backend = _new_backend(server, context)
            else:
                backend.adapt(server, context)
            now[server.name] = backend
        self.backends = now
        for name, backend in old.items():
            if now.get(name) is not backend:
                self._dismiss(backend, drain)
        for name, backend in now.items():
            if old.get(name) is not backend:
                self._admit(backend)

    async def run(self) -> None:
        """Run all backends until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for backend in tuple(self.backends.values()):
                    if self.backends.get(backend.name) is backend:  # `apply` may have replaced it meanwhile
                        self._admit(backend)
                    await checkpoint()  # starting a process blocks for milliseconds: let the fronts run in between
                await anyio.sleep_forever()
        finally:
            self._group = None

    def _admit(self, backend: Backend) -> None:
        if self._group is not None:  # otherwise `run` starts it
            before = self._running.get(backend.name)
            running = self._running[backend.name] = _Running(backend)
            self._group.start_soon(self._run_one, running, before, name=f"backend {backend.name}")

    def _dismiss(self, backend: Backend, drain: float) -> None:
        backend.retire()
        running = self._running.get(backend.name)
        if self._group is not None and running is not None:
            self._group.start_soon(self._drain, running, drain, name=f"end of backend {backend.name}")

    async def _run_one(self, running: _Running, before: _Running | None) -> None:
        """Run one backend, once the previous one of its name has ended."""
        name = running.backend.name
        try:
            if before is not None:
                await before.gone.wait()
            if not running.scope.cancel_called:
                with running.scope:
                    await running.backend.run()
        finally:
            running.gone.set()
            if self._running.get(name) is running:
                del self._running[name]

    async def _drain(self, running: _Running, drain: float) -> None:
        with anyio.CancelScope() as waiting:
            timer = self._clock.call_later(drain, waiting.cancel)
            try:
                await running.backend.idle()
            finally:
                timer.cancel()
        running.scope.cancel()


def _new_backend(server: ServerSettings, context: BackendContext) -> Backend:
    """A new backend, with its cached Listing."""
    return Backend(server, context, cached=None if context.memory is None else context.memory.recall(server))
