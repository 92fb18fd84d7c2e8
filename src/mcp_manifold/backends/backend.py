"""One configured MCP server: its owner task, its links, its latest Listing.

The owner task does connect, greet, list, wait, close, back off, over and over by the rules of `lifecycle`; nothing else
enters or leaves a link's context. Callers only ever wait for futures. Links held for one client session each live in a
task of their own, below the owner's.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from mcp_manifold.backends.connect import Connector, Kind
from mcp_manifold.backends.greeting import Greet, Greeting, Identity, Parameters
from mcp_manifold.backends.http import HttpTransport
from mcp_manifold.backends.lifecycle import Event, State, Status, advance
from mcp_manifold.backends.link import Link, Pending, Transport, either
from mcp_manifold.backends.lister import Lister
from mcp_manifold.call import Call, Session
from mcp_manifold.catalogue import Listing
from mcp_manifold.config import LimitSettings, ServerSettings
from mcp_manifold.errors import BackendError, BackendProtocolError, BackendUnavailable, RemoteError, SessionExpired
from mcp_manifold.wire import Era, Payload

logger = logging.getLogger(__name__)

CLOSE_WAIT: Final = 8.0
"""Seconds closing a link may take: longer than the graces for stdin, SIGTERM and SIGKILL together."""
NUDGE_EVERY: Final = 1.0
"""Seconds between two attempts that calls may trigger before the back-off is over."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every backend is given alike."""

    limits: LimitSettings
    identity: Identity
    greet: Greet
    parameters: Parameters
    patience: float
    """Seconds a call waits for a backend that is just connecting."""
    list_timeout: float
    """Seconds each page of a list may take."""
    on_listing: Callable[[Listing], None]
    on_status: Callable[[str], None]


@dataclass(slots=True, eq=False)
class _Held:
    """A link held for one client session."""

    link: asyncio.Future[Link]
    released: asyncio.Future[None]


class Backend:
    """See the module. `run` is the owner task; everything else is called from the same event loop."""

    def __init__(self, server: ServerSettings, around: Surroundings) -> None:
        self.name = server.name
        self.settings = server
        self.status = Status(since=_now())
        self.greeting: Greeting | None = None
        self._around = around
        self._connector = Connector(server, around.limits)
        self._lister = Lister(
            server.name,
            around.limits,
            timeout=around.list_timeout,
            parameters=around.parameters,
            on_listing=around.on_listing,
        )
        self._shared: Link | None = None
        self._clients: dict[str, _Held] = {}
        self._group: TaskGroup | None = None
        self._changed = asyncio.Event()
        self._nudged = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Backend {self.name} {self.status.state} failures={self.status.failures} clients={len(self._clients)}>"

    @property
    def kind(self) -> Kind | None:
        """The transport in use, once it is known."""
        return self._connector.kind

    @property
    def era(self) -> Era:
        """The era it is spoken to in."""
        return "handshake" if self.greeting is None else self.greeting.era

    @property
    def listing(self) -> Listing | None:
        """What it offers, as last listed."""
        return self._lister.latest

    @property
    def is_settled(self) -> bool:
        """Whether its first attempt is over: it has listed, or it has failed."""
        return self.listing is not None or self.status.failures > 0 or self.status.state is State.STOPPED

    @property
    def stderr(self) -> tuple[str, ...]:
        """The last lines of a child's stderr."""
        return self._connector.tail.lines()

    # --- what callers use --------------------------------------------------------------------------------------

    async def request(self, call: Call, method: str, params: dict[str, Payload]) -> Payload:
        """Relay a call, names and URIs already the backend's own.

        Raises:
            RemoteError: the backend's own error.
            BackendError: it cannot be reached, or did not answer.
            CallCancelled: the caller took it back.
        """
        link = self._ready(call.session) or await self._link(call.session)
        timeout = self.settings.timeout
        try:
            return await link.request(method, params, timeout=timeout, call=call)
        except SessionExpired:  # it was refused unread: once more, in a new session
            link = await self._link(call.session)
            return await link.request(method, params, timeout=timeout, call=call)

    def release(self, session: str) -> None:
        """A client's session is over: close the link held for it."""
        held = self._clients.get(session)
        if held is not None and not held.released.done():
            held.released.set_result(None)

    def unavailable(self) -> BackendUnavailable:
        """Why there is no link, as the caller is told."""
        status, now = self.status, _now()
        left = None if status.next_try is None else max(0.0, status.next_try - now)
        what = {
            State.CONNECTING: "is still connecting",
            State.BACKING_OFF: "is not reachable",
            State.STOPPED: "is stopped",
        }.get(status.state, "is not ready")
        reason = f"{what} ({status.last_error})" if status.last_error else what
        ago = f", for {now - status.since:.0f} s"
        soon = f"; next attempt in {left:.1f} s" if left is not None else ""
        return BackendUnavailable(self.name, reason + ago + soon, next_try=left)

    def _is_held(self, session: Session) -> bool:
        """Whether this client gets a link of its own (D9)."""
        if not session.key or self.settings.isolation == "shared":
            return False
        if self.settings.isolation == "client":
            return True
        return self.kind in ("http", "sse") and self.greeting is not None and self.greeting.era == "handshake"

    def _ready(self, session: Session) -> Link | None:
        """The link for a session, if it is open: the fast path."""
        if self._is_held(session):
            held = self._clients.get(session.key)
            link = held.link.result() if held and held.link.done() and not held.link.exception() else None
        else:
            link = self._shared
        return None if link is None or link.ended.done() else link

    async def _link(self, session: Session) -> Link:
        await self._until_ready()
        link = self._ready(session)
        if link is not None:
            return link
        if not self._is_held(session) or self._group is None:
            raise self.unavailable()
        held = self._clients.get(session.key)
        if held is None or held.link.done():
            held = self._clients[session.key] = _Held(_future(), _future())
            self._group.start_soon(self._hold, session.key, held, name=f"{self.name} for a client")
        return await asyncio.shield(held.link)

    async def _until_ready(self) -> None:
        """Wait, within bounds, for a backend that is connecting; make one attempt at once if it is backing off."""
        if self.status.state is State.BACKING_OFF and _now() - self.status.since >= min(NUDGE_EVERY, self._delay()):
            self._nudged.set()
        failures = self.status.failures
        with anyio.move_on_after(self._around.patience):
            while self.status.state in (State.IDLE, State.CONNECTING) or self._nudged.is_set():
                await self._changed.wait()
                if self.status.failures > failures:
                    break
        if self.status.state is not State.READY:
            raise self.unavailable()

    def _delay(self) -> float:
        return (self.status.next_try or self.status.since) - self.status.since

    # --- the owner task -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled; leaves nothing behind."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                while True:
                    await self._live_once()
                    await self._back_off()
        finally:
            self._group = None
            self._move(Event.STOPPED)
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
                await self._connector.aclose()

    async def _live_once(self) -> None:
        """One life: from connecting to the loss of the link."""
        self._move(Event.STARTED)
        event, reason = Event.FAILED, ""
        try:
            async with self._opened() as link:
                event = Event.LOST
                self._shared = link
                self._move(Event.OPENED)
                reason = (await self._lister.keep(link, self._met(), over_http=self.kind == "http")).message
        except (BackendError, RemoteError) as exc:
            reason = exc.message if isinstance(exc, BackendError) else str(exc)
        except Exception as exc:  # the owner task's boundary: a fault of ours in one backend must not end the others
            logger.exception("backend task failed", extra={"backend": self.name})
            reason = f"internal error: {type(exc).__name__}"
        finally:
            self._shared = None
        level = logging.DEBUG if reason == self.status.last_error else logging.WARNING  # say the same thing once
        logger.log(level, "backend lost: %s", reason, extra={"backend": self.name})
        self._move(event, reason)

    async def _back_off(self) -> None:
        wait = 0.0 if self.status.next_try is None else max(0.0, self.status.next_try - _now())
        with anyio.move_on_after(wait):
            await self._nudged.wait()

    def _move(self, event: Event, reason: str = "") -> None:
        self.status = advance(self.status, event, now=_now(), jitter=random.random(), reason=reason)
        self._nudged.clear()
        self._changed.set()
        self._changed = asyncio.Event()
        self._around.on_status(self.name)

    def _met(self) -> Greeting:
        if self.greeting is None:
            raise BackendProtocolError(self.name, "did not greet")
        return self.greeting

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Link]:
        """A negotiated link; closed, shielded and within a bound, when the context is left."""
        link, transport = await self._connect()
        try:
            yield link
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
                await transport.aclose()

    async def _connect(self) -> tuple[Link, Transport]:
        kinds = self._connector.kinds()
        for kind in kinds[:-1]:
            try:
                return await self._connect_as(kind)
            except BackendProtocolError as exc:
                logger.info("not a %s endpoint: %s", kind, exc.message, extra={"backend": self.name})
        return await self._connect_as(kinds[-1])

    async def _connect_as(self, kind: Kind) -> tuple[Link, Transport]:
        link = Link(self.name, on_notification=self._notified, write_limit=self._around.limits.max_message)
        transport = await self._connector.open(kind, link)
        try:
            link.attach(transport)
            greeting = await self._around.greet(
                link, eras=self._connector.eras(kind), identity=self._around.identity, timeout=self.settings.timeout
            )
        except BaseException:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WAIT):
                await transport.aclose()
            raise
        self._connector.learned(kind, greeting.era)
        self.greeting = greeting
        if isinstance(transport, HttpTransport) and greeting.era == "handshake":
            transport.listen()
        return link, transport

    async def _hold(self, key: str, held: _Held) -> None:
        """The owner task of a client's own link."""
        try:
            async with self._opened() as link:
                link.parameter_headers = self._shared.parameter_headers if self._shared else None
                held.link.set_result(link)
                await asyncio.wait(either(link.ended, held.released), return_when=asyncio.FIRST_COMPLETED)
        except (BackendError, RemoteError) as exc:
            if not held.link.done():
                held.link.set_exception(exc)
        finally:
            if not held.link.done():
                held.link.set_exception(BackendUnavailable(self.name, "is stopped"))
            held.link.exception()  # read here, since the caller it was meant for may be gone
            if self._clients.get(key) is held:
                del self._clients[key]

    def _notified(self, method: str, params: Payload, origin: Pending | None) -> None:
        self._lister.notified(method)


def _future() -> "asyncio.Future[Any]":
    return asyncio.get_running_loop().create_future()


def _now() -> float:
    return asyncio.get_running_loop().time()
