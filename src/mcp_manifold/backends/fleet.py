"""All backends of a configuration, each running in its own task; none of them can end another."""

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
class _Home:
    """Where one backend runs, and whether it is gone."""

    backend: Backend
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    gone: anyio.Event = field(default_factory=anyio.Event)


class Fleet(Mapping[str, Backend]):
    """The backends by name, in configuration order. `run` is entered once, by the composition root.

    Theory. A backend that is left out, or replaced by one of another definition, is out of the mapping at once; it goes
    on in the background until its calls are over, or its time is, and only then its successor starts: two processes of
    one server may not bear each other.
    """

    def __init__(self, servers: Sequence[ServerSettings], context: BackendContext) -> None:
        self.backends: Mapping[str, Backend] = {
            server.name: _made(server, context) for server in servers if not server.disabled
        }
        self._homes: dict[str, _Home] = {}
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
            BackendUnavailable: it is gone from the configuration.
        """
        backend = self.backends.get(name)
        if backend is None:
            raise BackendUnavailable(name, "is no longer configured")
        return backend

    def release(self, session: str) -> None:
        """A client's session is over: close the links held for it."""
        for backend in self.backends.values():
            backend.release(session)

    def apply(
        self, servers: Sequence[ServerSettings], context: BackendContext, *, renewed: Collection[str], drain: float
    ) -> None:
        """Be the backends of these servers from now on; the others, and the `renewed`, are stopped within bounds.

        Args:
            renewed: servers whose connection is to be a new one.
            drain: seconds that calls in flight are given before a backend is stopped.
        """
        old, now = self.backends, dict[str, Backend]()
        for server in servers:
            if server.disabled:
                continue
            backend = None if server.name in renewed else old.get(server.name)
            if backend is None:
                backend = _made(server, context)
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
                    if self.backends.get(backend.name) is backend:  # the settings may have changed in between
                        self._admit(backend)
                    await checkpoint()  # to start a process takes milliseconds: the fronts have their turn after each
                await anyio.sleep_forever()
        finally:
            self._group = None

    def _admit(self, backend: Backend) -> None:
        if self._group is not None:  # otherwise `run` will
            before = self._homes.get(backend.name)
            home = self._homes[backend.name] = _Home(backend)
            self._group.start_soon(self._house, home, before, name=f"backend {backend.name}")

    def _dismiss(self, backend: Backend, drain: float) -> None:
        backend.retire()
        home = self._homes.get(backend.name)
        if self._group is not None and home is not None:
            self._group.start_soon(self._see_out, home, drain, name=f"end of backend {backend.name}")

    async def _house(self, home: _Home, before: _Home | None) -> None:
        """The task of one backend, which begins when the last one of its name is gone."""
        name = home.backend.name
        try:
            if before is not None:
                await before.gone.wait()
            if not home.scope.cancel_called:
                with home.scope:
                    await home.backend.run()
        finally:
            home.gone.set()
            if self._homes.get(name) is home:
                del self._homes[name]

    async def _see_out(self, home: _Home, drain: float) -> None:
        with anyio.move_on_after(drain):
            await home.backend.idle()
        home.scope.cancel()


def _made(server: ServerSettings, context: BackendContext) -> Backend:
    """A new backend, with what is known of it from an earlier time."""
    return Backend(server, context, cached=None if context.memory is None else context.memory.recall(server))
