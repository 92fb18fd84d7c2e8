"""Finds who answers a call: here, or the one backend an entry belongs to. Holds no state.

Reads the scope's view once for a call, so that what was found is what is called. Policy is in the view: an entry that
may not be seen is not in it, and is answered as one that does not exist.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import Final, NamedTuple

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.core.bridge import Bridge, CallTarget
from mcp_manifold.core.hub import Hub
from mcp_manifold.errors import InvalidParams, RemoteError, UnknownItem, UnknownMethod
from mcp_manifold.model.call import Call, Handler
from mcp_manifold.model.catalogue import Entry, Kind
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import URL_ELICITATION_REQUIRED

_NOT_IN: Final[dict[str, frozenset[str]]] = {
    "handshake": frozenset({"server/discover", "subscriptions/listen"}),
    "modern": frozenset({"initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"}),
}
_COMING_BACK: Final = frozenset({"requestState", "inputResponses"})
"""What a modern client brings that goes on with a call it was sent away from."""


class Direct(NamedTuple):
    """A call that needs nothing but its backend: whom it is for, the open link, and the params that go over it."""

    backend: Backend
    native: str
    link: Link
    params: dict[str, Payload]

    @property
    def target(self) -> CallTarget:
        """Whom it is for, as the bridge knows it."""
        return CallTarget("tools/call", self.backend, self.native)


class Router:
    """See the module. `route` is the innermost Handler; `local` are the methods that are answered here,
    `others` answers those that nobody here knows.
    """

    def __init__(
        self,
        hub: Hub,
        fleet: Fleet,
        bridge: Bridge,
        *,
        local: Mapping[str, Handler],
        server_info: Payload,
        others: Handler | None = None,
    ) -> None:
        self._hub = hub
        self._bridge = bridge
        self._fleet = fleet
        self._server_info = server_info
        self._others = others
        self._methods: dict[str, Handler] = {
            **local,
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read_resource,
            "completion/complete": self._complete,
        }

    def __repr__(self) -> str:
        return f"<Router {self._hub!r}>"

    async def route(self, call: Call) -> Payload:
        """Answer a call.

        Raises:
            UnknownMethod: nobody here offers it.
            ManifoldError: whatever the answer's making raised.
        """
        method = self._methods.get(call.method, self._others)
        if method is None or call.method in _NOT_IN[call.session.era]:
            raise UnknownMethod(f"Method not found: {call.method[:100]}")
        return await method(call)

    # --- answered by a backend ------------------------------------------------------------------------------------

    async def _call_tool(self, call: Call) -> Payload:
        entry = await self._find(call, Kind.TOOL)
        return await self._relay(call, entry.backend, {**call.params, "name": Payload(entry.native_json)}, entry.native)

    async def _get_prompt(self, call: Call) -> Payload:
        entry = await self._find(call, Kind.PROMPT)
        return await self._relay(call, entry.backend, {**call.params, "name": Payload(entry.native_json)}, entry.native)

    async def _find(self, call: Call, kind: Kind) -> Entry:
        name = wire.text(call.params.get("name"), "name")
        scope = call.session.scope
        entry = self._hub.view(scope).catalogue.find(kind, name)
        if entry is None:  # it may belong to a backend that is just connecting
            await self._hub.tried(scope)
            entry = self._hub.view(scope).catalogue.find(kind, name)
        if entry is None:
            self._require_listed(scope, name)
            raise UnknownItem(kind, name)
        return entry

    def _require_listed(self, scope: str, name: str) -> None:
        """A name that can only be of a backend that never listed is not unknown: its backend is not there.

        Raises:
            BackendError: and this is how it is.
        """
        for member in self._hub.unlisted(scope):
            prefix = self._hub.prefix(scope, member)
            if name.startswith(prefix):
                raise self._fleet.find(member).unavailable()

    async def _read_resource(self, call: Call) -> Payload:
        uri = wire.text(call.params.get("uri"), "uri")
        scope = call.session.scope
        route = await self._hub.find_resource(scope, uri)
        return await self._relay(
            call, route.backend, {**call.params, "uri": Payload(wire.encode(route.uri))}, route.uri
        )

    async def _complete(self, call: Call) -> Payload:
        ref = wire.client_meta(call.params.get("ref"))
        kind = wire.text(ref.get("type"), "ref.type")
        await self._hub.settle(call.session.scope)
        catalogue = self._hub.view(call.session.scope).catalogue
        if kind == "ref/prompt":
            name = wire.text(ref.get("name"), "ref.name")
            entry = catalogue.find(Kind.PROMPT, name)
            member, missing = "name", UnknownItem("prompt", name)
        elif kind == "ref/resource":
            uri = wire.text(ref.get("uri"), "ref.uri")
            entry = catalogue.find(Kind.TEMPLATE, uri) or catalogue.find(Kind.RESOURCE, uri)
            member, missing = "uri", UnknownItem("resource template", uri)
        else:
            raise InvalidParams(f"Invalid params: unknown completion reference {kind[:40]!r}")
        if entry is None:
            raise missing
        ref = {**ref, member: Payload(entry.native_json)}
        return await self._relay(call, entry.backend, {**call.params, "ref": Payload(wire.encode(ref))}, entry.native)

    async def _relay(self, call: Call, name: str, params: dict[str, Payload], native: str) -> Payload:
        target = CallTarget(call.method, self._fleet.find(name), native)
        call.backend = name
        return await self._outcome(call, target, self._exchange(call, target, params))

    async def _outcome(self, call: Call, target: CallTarget, exchange: Awaitable[Payload]) -> Payload:
        """What comes of an exchange with a backend, as the caller is to have it."""
        try:
            result = await exchange
        except RemoteError as exc:
            instead = self.refused(call, target, exc)
            if instead is None:
                raise
            result = instead
        return self._adapted(call, await self._linked(call, result))

    def direct(self, call: Call) -> Direct | None:
        """Where a call can be relayed to in this very turn; None where something must be waited for, or refused."""
        if call.method != "tools/call" or "task" in call.params:
            return None
        session = call.session
        try:
            name = wire.text(call.params.get("name"), "name")
        except InvalidParams:
            return None
        entry = self._hub.view(session.scope).catalogue.find_tool(name)
        backend = None if entry is None else self._fleet.one(entry.backend)
        link = None if backend is None else backend.free(call)
        if entry is None or backend is None or link is None or _has_to_wait(call, link):
            return None
        call.backend = entry.backend
        params = {**call.params, "name": Payload(entry.native_json)}
        return Direct(backend, entry.native, link, params)

    def takes_long(self, call: Call, result: Payload) -> bool:
        """Whether a result is more than one turn's work: it is long, and was not looked at when it was read or may have
        links in it; or its client is to be asked something first.
        """
        if len(result) >= wire.LONG:
            look = _look(call, result)
            if look is not None and not (look.is_known and look.is_plain):
                return True
        is_asked_here = call.backend_era == "modern" and call.session.era == "handshake"
        return is_asked_here and wire.input_required(result, _look(call, result)) is not None

    def arrived(self, call: Call, result: Payload) -> Payload:
        """The result of a call that was relayed directly, as its caller is to have it; none that `takes_long`."""
        result = self._named(call, result)
        if wire.may_hold_refs(result):
            result = wire.map_resource_refs(call.method, result, self._public(call), call.view_of(result))
        return result if call.backend_era == call.session.era == "handshake" else self._adapted(call, result)

    async def arrived_long(self, call: Call, direct: Direct, result: Payload) -> Payload:
        """As `arrived`, for one that does."""
        return await self._outcome(call, direct.target, self._completed(call, direct.target, direct.params, result))

    def refused(self, call: Call, target: CallTarget, exc: RemoteError) -> Payload | None:
        """Put a backend's own error as the caller is to have it; a result instead, if its era has no such error."""
        session = call.session
        if exc.code == URL_ELICITATION_REQUIRED:
            if session.era == "handshake":
                self._bridge.sent_off(exc, target.backend.link_of(session), session)
            elif call.backend_era == "handshake":
                instead = self._bridge.url_required(exc, call, target)
                if instead is not None:
                    return instead
        public = self._hub.view(session.scope).whole.public_uri
        exc.raw = wire.map_error_ref(exc.raw, partial(public, call.backend))
        return None

    def _named(self, call: Call, result: Payload) -> Payload:
        is_theirs = call.backend_era == call.session.era == "modern"
        return self._bridge.named(call, result) if is_theirs and wire.may_ask(result, _look(call, result)) else result

    def _public(self, call: Call) -> Callable[[str], str]:
        return partial(self._hub.public_uri, call.session.scope, call.backend)

    async def _linked(self, call: Call, result: Payload) -> Payload:
        if len(result) < wire.LONG:
            return wire.map_resource_refs(call.method, result, self._public(call), call.view_of(result))
        return await _in_turns(wire.ref_steps(call.method, result, self._public(call), call.view_of(result)))

    def _adapted(self, call: Call, result: Payload) -> Payload:
        return wire.adapt_result(
            result,
            method=call.method,
            backend=call.backend_era,
            client=call.session.era,
            server_info=self._server_info,
            view=_look(call, result),
        )

    async def _exchange(self, call: Call, target: CallTarget, params: dict[str, Payload]) -> Payload:
        """The backend's result; where the eras differ, the bridge carries what it asks in between."""
        backend = target.backend
        if call.session.era == "modern":
            if not backend.has_connected:
                await backend.meet()  # which era it speaks now, decides
            if backend.era == "handshake":
                if "requestState" in params:
                    resumed = await self._bridge.resume(call, target)
                    if resumed is not None:
                        return resumed
                params = {key: value for key, value in params.items() if key not in _COMING_BACK}
        return await self._completed(call, target, params, await backend.request(call, call.method, params))

    async def _completed(self, call: Call, target: CallTarget, params: dict[str, Payload], result: Payload) -> Payload:
        """A result that is one, for a client that cannot be handed what a modern backend wants to know first."""
        if call.backend_era == "modern" and call.session.era == "handshake":
            return await self._bridge.complete(call, target, params, result)
        return self._named(call, result)


def _look(call: Call, result: Payload) -> wire.ResultView | None:
    """The look at a large result, without which small ones take less time."""
    return call.view_of(result) if len(result) >= wire.LARGE else None


def _has_to_wait(call: Call, link: Link) -> bool:
    """Whether a call goes on with another one, or wants a log level set first: what the other era has no words for."""
    session = call.session
    if session.era == "handshake" or link.era == "modern":
        return False
    return session.log_level != "" or not _COMING_BACK.isdisjoint(call.params)


async def _in_turns(steps: Generator[None, None, Payload]) -> Payload:
    """What a long work comes to, others having their turn after each of its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            made: Payload = done.value
            return made
        await asyncio.sleep(0)
