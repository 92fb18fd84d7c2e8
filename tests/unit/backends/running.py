"""Backends run against scripted servers: settings, surroundings that only remember, and waiting. Tests nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Identity
from mcp_manifold.backends.link.sdk import greet, parameters
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Payload
from tests.fakes.clock import FakeClock
from tests.peers.stdio_backend import StdioBackend
from tests.unit.backends.linking import Caller, text_of, tool, within

IDENTITY = Identity(Payload(b'{"name":"test","version":"1"}'), Payload(b'{"roots":{},"sampling":{},"elicitation":{}}'))


class Around:
    """What backends are told to report to: remembers it."""

    def __init__(self, *, patience: float = 10.0, clock: Clock | None = None) -> None:
        self.listings: list[Listing] = []
        self.questions: list[ServerRequest] = []
        self.notices: list[ServerNotification] = []
        self.needed: set[str] = set()
        self._patience = patience
        self._clock = clock or LoopClock()
        self._grown = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Around listings={len(self.listings)}>"

    def surroundings(self) -> BackendContext:
        return BackendContext(
            limits=LimitSettings(),
            identity=IDENTITY,
            greet=greet,
            parameters=parameters,
            patience=self._patience,
            list_timeout=30.0,
            start="eager",
            idle_timeout=0.0,
            is_needed=lambda name: name in self.needed,
            on_listing=self._listed,
            on_status=lambda name: self._grown.set(),
            on_question=self._asked,
            on_notice=self.notices.append,
            on_link=self._opened,
            with_level=lambda link, level: contextlib.nullcontext(),
            clock=self._clock,
        )

    async def _opened(self, link: Link) -> None:
        pass

    def _listed(self, listing: Listing) -> None:
        self.listings.append(listing)
        self._grown.set()

    def _asked(self, question: ServerRequest) -> None:
        self.questions.append(question)
        self._grown.set()

    async def until(self, found: Callable[[], bool]) -> None:
        """Wait until something is so; looked at whenever a state or a listing changed."""
        async with asyncio.timeout(10):
            while not found():
                self._grown.clear()
                await self._grown.wait()


class Run:
    """One running backend."""

    def __init__(self, backend: Backend, context: Around) -> None:
        self.backend = backend
        self.context = context

    def __repr__(self) -> str:
        return f"<Run {self.backend!r}>"

    async def listed(self) -> None:
        """Wait for its first listing."""
        await self.context.until(lambda: self.backend.listing is not None)

    async def next_attempt(self, clock: FakeClock) -> None:
        """Let the clock reach the end of the back-off, and no more: what starts then needs real time."""
        await self.context.until(lambda: self.backend.status.next_try is not None)
        await clock.advance((self.backend.status.next_try or 0) - clock.now())

    async def echo(self, text: str = "x", caller: Caller | None = None) -> str:
        """What the tool `echo` said."""
        return text_of(await self.call("echo", caller, text=text))

    async def call(self, name: str, caller: Caller | None = None, **arguments: object) -> Payload:
        """The result of a tool."""
        params = tool(name, **arguments)
        call = (caller or Caller()).call()
        result: Payload = await within(self.backend.request(call, "tools/call", params))
        return result


def over_stdio(backend: StdioBackend, name: str = "notes", **more: object) -> ServerSettings:
    """Settings that start a scripted child."""
    given = {"name": name, "command": backend.command, "args": backend.args, "env": backend.env, **more}
    return ServerSettings.model_validate(given)


def over_web(url: str, name: str = "notes", **more: object) -> ServerSettings:
    """Settings of a server at an address."""
    return ServerSettings.model_validate({"name": name, "url": url, **more})


@asynccontextmanager
async def running(
    settings: ServerSettings, *, patience: float = 10.0, clock: Clock | None = None
) -> AsyncIterator[Run]:
    """A running backend, stopped in the end."""
    context = Around(patience=patience, clock=clock)
    backend = Backend(settings, context.surroundings())
    async with anyio.create_task_group() as group:
        group.start_soon(backend.run)
        try:
            yield Run(backend, context)
        finally:
            group.cancel_scope.cancel()


@asynccontextmanager
async def fleet_of(*settings: ServerSettings, patience: float = 10.0) -> AsyncIterator[tuple[Fleet, Around]]:
    """A running fleet, stopped in the end."""
    context = Around(patience=patience)
    fleet = Fleet(settings, context.surroundings())
    async with anyio.create_task_group() as group:
        group.start_soon(fleet.run)
        try:
            yield fleet, context
        finally:
            group.cancel_scope.cancel()
