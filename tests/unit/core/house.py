"""The call path over fake backends: the real plan, Dispatcher and Results, with links on fake transports."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import pytest

from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.calls.executor import RequestExecutor
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings
from mcp_manifold.core.bridge import Bridge
from mcp_manifold.core.dispatcher import Dispatcher, InFlightCall
from mcp_manifold.core.hub import Hub
from mcp_manifold.core.notifications import ExtensionMethods
from mcp_manifold.core.plan import Facts
from mcp_manifold.core.results import Results
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import BackendUnavailable, ManifoldError, RemoteError
from mcp_manifold.model.call import Call, Reach, Session, Stage
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.policy import ANONYMOUS, Principal, policy_of
from mcp_manifold.wire import EMPTY, LATEST_HANDSHAKE, MODERN_VERSION, Envelope, Era, Payload, encode
from tests.fakes.clock import FakeClock
from tests.unit.backends.linking import FakeReply, FakeTransport, Heard, new_link, raw, reply_of, within
from tests.unit.backends.running import Around

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
INFO = Payload(b'{"name":"ours","version":"1"}')
META = {"io.modelcontextprotocol/serverInfo": {"name": "ours", "version": "1"}}
ABLE = b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{}}'
Answer = Callable[[str, dict[str, Any]], object]
"""The result of a request: JSON values, bytes, an error to raise, or None for silence."""


class FakeLister:
    """Has a listing, and counts relistings."""

    def __init__(self) -> None:
        self.latest: Listing | None = None
        self.relisted = 0
        self.refreshed = 0

    def refresh(self) -> None:
        self.refreshed += 1

    async def relist(self) -> None:
        self.relisted += 1


class FakeBackend:
    """A backend with a real executor and one link, which answers as told. `connects`: a call can open a link."""

    def __init__(self, settings: ServerSettings, era: Era, house: "House", answer: Answer) -> None:
        self.name = settings.name
        self.settings = settings
        self.era = era
        self.has_connected = True
        self.has_one_link = True
        self.connects: Callable[[], None] | None = self.open
        self.lister = FakeLister()
        context = Around(clock=house.clock).surroundings()
        self.executor = RequestExecutor(settings, context, lister=cast("Any", self.lister), clock=house.clock)
        self._house = house
        self._answer = answer
        self.transports: list[FakeTransport] = []
        self.life = self
        """Its link, as far as `plan` reads a life."""
        self.shared: Link | None = None
        self.open()

    def open(self) -> None:
        """Open a new link in place of the last one."""
        link = new_link(
            self._house.heard, name=self.name, on_request=self._house.bridge.on_request, clock=self._house.clock
        )
        self.transports.append(FakeTransport(link, self._answered))
        if self.era == "modern":
            link.stamp({})
        link.adopt("", Payload(b'{"logging":{}}'))
        self.shared = link

    @property
    def link(self) -> Link:
        assert self.shared is not None
        return self.shared

    def links(self) -> list[Link]:
        return [self.link]

    @property
    def transport(self) -> FakeTransport:
        return self.transports[-1]

    @property
    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """The requests it received, without the `_meta` of this hop."""
        sent = [body for each in self.transports for _, body in each.requests]
        return [(body["method"], {k: v for k, v in body.get("params", {}).items() if k != "_meta"}) for body in sent]

    def _answered(self, pending: PendingRequest) -> bytes | None:
        params = {key: json.loads(bytes(value)) for key, value in pending.params.items()}
        found = self._answer(pending.method, params)
        if found is None:
            return None
        if isinstance(found, RemoteError):
            return b'"error":' + bytes(found.raw)
        if isinstance(found, Exception):
            asyncio.get_running_loop().call_soon(self.link.fail, pending, found)
            return None
        return b'"result":' + (found if isinstance(found, bytes) else encode(found))

    def answer(self, result: object, number: int | None = None) -> None:
        """Answer a request, the last one by default, in this turn."""
        pending = self.transport.requests[-1][0]
        number = pending.number if number is None else number
        if isinstance(result, RemoteError):
            self.link.fed(b'{"jsonrpc":"2.0","id":%d,"error":%b}' % (number, bytes(result.raw)))
        else:
            body = result if isinstance(result, bytes) else encode(result)
            self.link.fed(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, body))

    def open_call_link(self, call: Call) -> Link | None:
        return self.open_session_link(call.session)

    def open_session_link(self, session: Session) -> Link | None:
        return None if self.shared is None or self.shared.ended.done() else self.shared

    async def connect(self, call: Call, params: dict[str, Payload]) -> None:
        if self.connects is None:
            raise self.unavailable()
        self.connects()

    async def meet(self, call: Call, params: dict[str, Payload]) -> None:
        self.has_connected = True

    async def until_listed(self, call: Call, params: dict[str, Payload]) -> None:
        raise self.unavailable()

    def unavailable(self) -> BackendUnavailable:
        return BackendUnavailable(self.name, "is not reachable")

    @property
    def is_idle(self) -> bool:
        executor = self.executor
        return (executor.running, executor.beside, executor.waiting.size) == (0, 0, 0)


class FakeFleet(dict[str, FakeBackend]):
    """Backends by name."""

    @property
    def backends(self) -> "FakeFleet":
        return self

    def find(self, name: str) -> FakeBackend:
        if name not in self:
            raise BackendUnavailable(name, "is no longer configured")
        return self[name]


class Client(Reach):
    """A client that keeps a session: the requests it received, and the futures of its responses."""

    def __init__(self, *, capabilities: bytes = ABLE, response: bytes | None = None) -> None:
        self.asked: list[tuple[str, Any, asyncio.Future[Envelope]]] = []
        self.told: list[Any] = []
        self.response = response
        """The result of every request, at once; None to take its time."""
        self.session = Session("s", ANONYMOUS, "", LATEST_HANDSHAKE, capabilities=Payload(capabilities), reach=self)

    def __repr__(self) -> str:
        return f"<Client asked={len(self.asked)}>"

    def ask(self, method: str, params: Payload | None, call: Call | None) -> "asyncio.Future[Envelope]":
        future: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self.asked.append((method, None if params is None else json.loads(bytes(params)), future))
        if self.response is not None:
            future.set_result(Envelope(result=Payload(self.response)))
        return future

    def tell(self, message: bytes) -> bool:
        self.told.append(json.loads(message))
        return True

    def call(self, method: str = "tools/call", **params: object) -> Call:
        return call_of(self.session, method, **params)


def call_of(session: Session, method: str = "tools/call", **params: object) -> Call:
    """A call of a session."""
    return Call(method, raw(**params), session, FakeReply())


def modern_call(
    method: str = "tools/call",
    *,
    capabilities: bytes = ABLE,
    principal: Principal = ANONYMOUS,
    scope: str = "",
    **params: object,
) -> Call:
    """A call of a 2026-07-28 client."""
    session = Session("", principal, scope, MODERN_VERSION, capabilities=Payload(capabilities))
    return call_of(session, method, **params)


class CountingStage:
    """A stage that records the ends of calls; it may refuse them."""

    is_active = True

    def __init__(self) -> None:
        self.in_flight = 0
        self.ends: list[str] = []
        self.name = ""
        self.steps: list[str] = []
        """What stages with the same list saw, in order."""
        self.refusal: ManifoldError | None = None

    def began(self, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.in_flight += 1
        self.steps.append(f"{self.name} began")

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        assert (result is None) != (failure is None)
        self.in_flight -= 1
        self.steps.append(f"{self.name} ended")
        self.ends.append("ok" if failure is None else type(failure).__name__)


class House:
    """The call path of a Manifold, over backends that have listed. Two stages count the calls."""

    def __init__(self, *servers: ServerSettings, instructions: str = "", page_size: int = 0, **settings: Any) -> None:
        manifold = ManifoldSettings.model_validate({"startup_timeout": 60, **settings})
        self.clock = FakeClock()
        self.servers = {each.name: each for each in servers}
        self.hub = Hub(servers, manifold, policy_of(servers), clock=self.clock)
        self.fleet = FakeFleet()
        fleet = cast("Fleet", self.fleet)
        self.bridge = Bridge(
            LimitSettings(), names_server=lambda scope: len(self.hub.members(scope)) > 1, clock=self.clock
        )
        self.tasks = Tasks(self.hub, fleet)
        self.heard = Heard()
        self.levels: list[tuple[Link, str]] = []
        """The raised log levels."""
        responder = ScopeResponder(self.hub, server_info=INFO, instructions=instructions, page_size=page_size)
        local = {**self.tasks.methods, "resources/subscribe": self._wait}
        extensions = ExtensionMethods(self.hub)
        self.facts = Facts(
            self.hub, fleet, responder, self.tasks, self.bridge, extensions, local=local, raise_level=self._raise_level
        )
        self.stages = [CountingStage(), CountingStage()]
        self.ending: list[Call] = []
        self.released = asyncio.Event()
        """Lets the calls of `resources/subscribe` end."""
        self.dispatcher = Dispatcher(
            self.facts,
            Results(self.hub, self.bridge, self.tasks, server_info=INFO),
            cast("Sequence[Stage]", self.stages),
            clock=self.clock,
            lower_level=lambda link, level: self.levels.remove((cast("Link", link), level)),
            end=self.ending.append,
        )

    async def _wait(self, call: Call, *_: object) -> Payload:
        await self.released.wait()
        return EMPTY

    async def _raise_level(self, link: Link, level: str) -> None:
        self.levels.append((link, level))

    def attempted(self) -> None:
        """End the first attempt at every server."""
        for name in self.servers:
            self.hub.mark_attempted(name)

    def offers(
        self, name: str, answer: Answer = lambda method, params: {}, *, era: Era = "handshake", **lists: Any
    ) -> FakeBackend:
        """A backend that is connected and has listed."""
        members = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
        items: dict[str, Any] = {
            kind: tuple(
                json.dumps(item if isinstance(item, dict) else {"name": item, member: item}).encode()
                for item in lists.pop(kind, ())
            )
            for kind, member in members.items()
        }
        self.hub.adopt(Listing(name, 1, era, **items, **{"capabilities": b'{"completions":{}}', **lists}))
        self.fleet[name] = FakeBackend(self.servers[name], era, self, answer)
        return self.fleet[name]

    def backend(self, name: str = "a") -> Backend:
        """A fake backend, as the sources know it."""
        return cast("Backend", self.fleet[name])

    def dispatch(self, call: Call) -> InFlightCall:
        return self.dispatcher.dispatch(call)

    async def raw(self, method: str, version: str = LATEST_HANDSHAKE, scope: str = "", **params: Any) -> bytes:
        call = call_of(Session("", ANONYMOUS, scope, version), method, **params)
        self.attempted()
        self.dispatch(call)
        return bytes(await within(reply_of(call).outcome()))

    async def ask(self, method: str, version: str = LATEST_HANDSHAKE, scope: str = "", **params: Any) -> Any:
        return msgspec.json.decode(await self.raw(method, version, scope, **params))

    async def refused(self, method: str, version: str = LATEST_HANDSHAKE, **params: Any) -> ManifoldError:
        with pytest.raises(ManifoldError) as caught:
            await self.raw(method, version, **params)
        return caught.value


def server(name: str, **settings: Any) -> ServerSettings:
    return ServerSettings.model_validate({"name": name, "command": "x", **settings})
