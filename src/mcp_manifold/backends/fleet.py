"""All backends of a configuration, each running in its own task; none of them can end another."""

from collections.abc import Iterator, Mapping, Sequence

import anyio

from mcp_manifold.backends.backend import Backend, Surroundings
from mcp_manifold.config import ServerSettings
from mcp_manifold.errors import BackendUnavailable


class Fleet(Mapping[str, Backend]):
    """The backends by name, in configuration order. `run` is entered once, by the composition root."""

    def __init__(self, servers: Sequence[ServerSettings], around: Surroundings) -> None:
        self._backends = {server.name: Backend(server, around) for server in servers if not server.disabled}

    def __repr__(self) -> str:
        return f"<Fleet {' '.join(repr(backend) for backend in self._backends.values())}>"

    def __getitem__(self, name: str) -> Backend:
        return self._backends[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._backends)

    def __len__(self) -> int:
        return len(self._backends)

    def find(self, name: str) -> Backend:
        """The backend of that name.

        Raises:
            BackendUnavailable: it is gone from the configuration.
        """
        backend = self._backends.get(name)
        if backend is None:
            raise BackendUnavailable(name, "is no longer configured")
        return backend

    def release(self, session: str) -> None:
        """A client's session is over: close the links held for it."""
        for backend in self._backends.values():
            backend.release(session)

    async def run(self) -> None:
        """Run all backends until cancelled."""
        async with anyio.create_task_group() as group:
            for backend in self._backends.values():
                group.start_soon(backend.run, name=f"backend {backend.name}")
            if not self._backends:
                await anyio.sleep_forever()
