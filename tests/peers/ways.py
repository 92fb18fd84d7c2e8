"""Every way to talk: a transport in an era, as a backend and a client connected to it. Tests nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from tests.peers.backend import HttpBackend, Script, SseBackend, StdioBackend
from tests.peers.clients import (
    HANDSHAKE_VERSIONS,
    MODERN_VERSION,
    Answer,
    Client,
    HttpClient,
    ModernClient,
    SseClient,
    StdioClient,
)
from tests.peers.face import Face

ANSWERS: Final[Mapping[str, Answer]] = MappingProxyType(
    {"roots/list": '{"roots":[ ]}', "sampling/createMessage": lambda params: '{"got":' + params.decode() + "}"}
)
"""What the clients of `talking` can answer; the latter shows what was asked."""


@dataclass(frozen=True, slots=True)
class Way:
    """One transport in one era."""

    transport: str
    version: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.version}"


LATEST: Final = HANDSHAKE_VERSIONS[-1]
WAYS: Final = (
    Way("stdio", LATEST),
    Way("stdio", MODERN_VERSION),
    Way("json", LATEST),
    Way("events", LATEST),
    Way("deferred", LATEST),
    Way("deferred", MODERN_VERSION),
    Way("json", MODERN_VERSION),
    Way("events", MODERN_VERSION),
    Way("sse", "2024-11-05"),
)


@asynccontextmanager
async def talking(way: Way, script: Script) -> AsyncIterator[tuple[Face, Client]]:
    """A backend and a client of it, connected."""
    modes = {"json": "json", "events": "sse", "deferred": "deferred"}
    if way.transport == "stdio":
        async with StdioBackend(script) as child, StdioClient(child.argv, cwd=child.cwd, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield child, client
    elif way.transport == "sse":
        async with SseBackend(script) as server, SseClient(server.url, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield server, client
    else:
        scripted = replace(script, replies=modes[way.transport])  # type: ignore[arg-type]  # one of the literals
        kind = ModernClient if way.version == MODERN_VERSION else HttpClient
        async with HttpBackend(scripted) as backend, kind(backend.url, answers=ANSWERS) as client:
            await client.connect(way.version)
            yield backend, client
