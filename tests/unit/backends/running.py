"""Backends run against scripted servers: settings, surroundings that only remember, and waiting. Tests nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.context import BackendContext
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link, settle
from mcp_manifold.backends.link.negotiation import Identity
from mcp_manifold.backends.link.sdk import greet, parameters
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.clock import Clock, LoopClock
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.errors import ManifoldError
from mcp_manifold.model.call import Call
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
        call = (caller or Caller()).call()
        call.params = tool(name, **arguments)
        result: Payload = await within(perform(self.backend, call))
        return result


@dataclass(frozen=True, slots=True)
class Sent:
    """What a call sends."""

    link: Link
    params: dict[str, Payload]
    task: object = None


async def perform(backend: Backend, call: Call) -> Payload:
    """The result of a call, sent in the steps of a dispatcher: a link, a slot, and as many attempts as are due."""
    executor, waited, has_slot = backend.executor, 0.0, False
    while True:
        try:
            link = await _open_link(backend, call)
        except BaseException:
            if has_slot:
                executor.leave()
            raise
        if not has_slot and executor.running >= executor.most:
            waited += await executor.wait_for_slot(call, call.params)
            has_slot = True
            continue
        request, pending, failure = Sent(link, call.params), None, None
        outcome: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
        call.attempts += 1
        try:
            pending = executor.send(call, request, settle(outcome), waited=waited, has_slot=has_slot)
            await outcome
        except ManifoldError as exc:
            failure = exc
        retry = executor.finished(call, request, pending, failure, waited)
        if retry is None:
            if failure is not None:
                raise failure
            return outcome.result()
        has_slot, waited = True, retry.waited
        call.retries += retry.pause > 0
        await retry.prepare()


async def _open_link(backend: Backend, call: Call) -> Link:
    """The open link of a call that its breaker admits."""
    while True:
        if backend.executor.breaker.is_shut and not call.attempts:
            backend.executor.require_admitted()
        link = backend.find_link(call)
        if link is not None:
            return link
        await backend.connect(call)


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
