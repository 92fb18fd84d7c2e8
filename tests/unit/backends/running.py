"""Runs backends against scripted servers: settings, a context that records reports, and calls. Tests nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Identity
from mcp_manifold.backends.link.sdk import greet, parameters
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.core.dispatcher import Dispatcher, InFlightCall
from mcp_manifold.core.plan import Facts, Send
from mcp_manifold.core.results import Results
from mcp_manifold.errors import BackendError
from mcp_manifold.model.call import Call
from mcp_manifold.model.catalogue import Entry, Kind, Listing, ResourceRoute
from mcp_manifold.wire import Payload, encode
from tests.fakes.clock import FakeClock
from tests.fakes.news import News
from tests.peers.stdio_backend import StdioBackend
from tests.unit.backends.linking import Caller, reply_of, text_of, within

IDENTITY = Identity(Payload(b'{"name":"test","version":"1"}'), Payload(b'{"roots":{},"sampling":{},"elicitation":{}}'))


class Around:
    """Records the reports of backends."""

    def __init__(self, *, patience: float = 10.0, clock: Clock | None = None) -> None:
        self.listings: list[Listing] = []
        self.requests: list[ServerRequest] = []
        self.notifications: list[ServerNotification] = []
        self.needed: set[str] = set()
        self._patience = patience
        self._clock = clock or LoopClock()
        self._news = News()

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
            on_status=lambda name: self._news.tell(),
            on_request=self.requests.append,
            on_notification=self.notifications.append,
            on_link=self._opened,
            clock=self._clock,
        )

    async def _opened(self, link: Link) -> None:
        pass

    def _listed(self, listing: Listing) -> None:
        self.listings.append(listing)
        self._news.tell()

    async def until(self, found: Callable[[], bool]) -> None:
        """Wait until a condition holds; it is checked whenever a state or a listing changed."""
        await self._news.until(found)


class RouteTo:
    """A Hub and its lists, as far as `plan` reads them for calls: every tool and resource is that of one backend."""

    methods = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.views = {"": self}
        self.catalogue = self.tools = self

    def get(self, name: str) -> Entry:
        return Entry(Kind.TOOL, name, name, self.name, name, name, encode(name), b"{}")

    def route_resource(self, scope: str, uri: str) -> ResourceRoute:
        return ResourceRoute(self.name, uri)


class RawResults:
    """Gives every outcome to the caller as it is."""

    def finish(self, call: Call, send: Send, pending: object, result: Payload | None, failure: Exception | None) -> Any:
        return failure if result is None else result


def dispatcher_to(fleet: "Fleet | Run", name: str) -> Dispatcher:
    """A Dispatcher whose calls all go to one backend of a fleet, by native names."""
    route = RouteTo(name)
    facts: Any = Facts(route, fleet, route, None, None, None, {}, None)  # type: ignore[arg-type]  # all it reads
    return Dispatcher(
        facts, cast("Results", RawResults()), [], clock=LoopClock(), lower_level=lambda *_: None, end=lambda _: None
    )


async def request(fleet: "Fleet | Run", name: str, call: Call) -> Payload:
    """The result of a Caller's call. Cancelling this cancels the call."""
    in_flight = dispatcher_to(fleet, name).dispatch(call)
    try:
        return await reply_of(call).outcome()
    except asyncio.CancelledError:
        in_flight.cancel()
        raise


class Run:
    """One running backend, and a Fleet of it as far as `plan` reads one."""

    def __init__(self, backend: Backend, context: Around) -> None:
        self.backend = backend
        self.context = context
        self.backends = {backend.name: backend}

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
        """The text in the result of the tool `echo`."""
        return text_of(await self.call("echo", caller, text=text))

    async def call(self, name: str, caller: Caller | None = None, **arguments: object) -> Payload:
        """The result of a tool."""
        return await self.request((caller or Caller()).call(name=name, arguments=arguments))

    async def failure(self, name: str = "echo", caller: Caller | None = None) -> BackendError:
        """The failure of a tool."""
        with pytest.raises(BackendError) as caught:
            await self.call(name, caller)
        return caught.value

    async def request(self, call: Call) -> Payload:
        """The result of a call, by native names, in the way of the Dispatcher."""
        result: Payload = await within(request(self, self.backend.name, call))
        return result

    def dispatch(self, call: Call) -> InFlightCall:
        """Begin a call."""
        return dispatcher_to(self, self.backend.name).dispatch(call)


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
